//! What is often in the place of a downloaded file.

/// What a file is that was meant to be an image, weights or other data, by its first bytes, and what to do.
///
/// ```
/// let pointer = b"version https://git-lfs.github.com/spec/v1";
/// assert_eq!(vgg_files::not_the_file(pointer), Some("a Git LFS pointer: run `git lfs pull`"));
/// ```
pub fn not_the_file(start: &[u8]) -> Option<&'static str> {
    let known: [(&[u8], &str); 3] = [
        (b"version https://", "a Git LFS pointer: run `git lfs pull`"),
        (b"<", "a web page or an XML file, such as an error message of a server: download the file again"),
        (b"\x1f\x8b", "compressed with gzip: unpack it first"),
    ];
    let start = start.trim_ascii_start();
    known.iter().find(|(signature, _)| start.starts_with(signature)).map(|(_, what)| *what)
}

//! The files in `datasets` contain what a user needs.

#[test]
fn every_data_set_has_its_home_and_command() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("datasets");
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|e| e != "toml") {
            continue;
        }
        let set: toml::Table = toml::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        let text = |key: &str| set[key].as_str().unwrap();
        assert!(text("home").starts_with("http") && !text("licence").is_empty(), "{}", path.display());
        let typed = text("prepare");
        match text("layout") {
            "archives" => assert!(typed.contains("prepare-imagenet")),
            "folders" => assert!(typed.contains("prepare-folder") && !typed.contains("--layout")),
            other => assert!(typed.contains(&format!("--layout {other} ")), "{typed}"),
        }
        let files = set["files"].as_array().unwrap();
        assert!(!files.is_empty(), "{}", path.display());
        for file in files {
            let name = file["name"].as_str().unwrap();
            let md5 = file.get("md5").map(|md5| md5.as_str().unwrap());
            // ImageNet publishes no MD5 sums for its bounding boxes.
            let without = name.starts_with("ILSVRC2012_bbox_");
            let sound = |md5: &str| md5.len() == 32 && md5.bytes().all(|b| b.is_ascii_hexdigit());
            assert!(md5.map_or(without, sound), "{name}: {md5:?}");
        }
        assert!(set["splits"]["train"].is_str() && set["splits"]["val"].is_str());
        names.push(path.file_stem().unwrap().to_string_lossy().into_owned());
    }
    names.sort_unstable();
    let expected = [
        "caltech-101",
        "caltech-256",
        "cifar-10",
        "ilsvrc2012",
        "imagenette",
        "tiny-imagenet",
        "voc2007",
        "voc2012",
    ];
    assert_eq!(names, expected);
}

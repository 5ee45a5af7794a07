//! The files of an analysis: their names, every value of the CSV files, every pixel of the pictures.

mod common;

use common::{image, posteriors, write_set};
use ndarray::{Array2, array, s};
use vgg_data::{Image, ImageSet, Interpolation, Split, captioned_sheet, decode, draw_text, resize};
use vgg_eval::{Analysis, Error, Posteriors, confusion_picture};

#[test]
fn csv_files_have_classes_confusion_matrix_and_mistakes() {
    let values = array![[0.5, 0.25, 0.25], [0.125, 0.75, 0.125], [0.25, 0.625, 0.125], [0.875, 0.125, 0.0]];
    let mut posteriors = posteriors(values, &[0, 1, 0, 2]);
    posteriors.origin.classes = vec!["n02119789".into(), "says \"no\", twice".into(), "c".into()];
    posteriors.paths = vec!["a/1.jpg".into(), "b/2.jpg".into(), "a/3, copy.jpg".into(), "c/4.jpg".into()];
    let analysis = Analysis::new(&posteriors).unwrap();
    // A WNID is replaced by its words.
    assert_eq!(analysis.class_names, ["kit fox, Vulpes macrotis", "says \"no\", twice", "c"]);
    // Errors of 1/2, 0/1 and 1/1.
    assert_eq!(analysis.worst_classes(2), [2, 0]);
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("mistakes.png"), b"of other posteriors").unwrap();
    let written = analysis.write(dir.path(), None).unwrap();
    assert_eq!(written, ["classes.csv", "confusion.csv", "confusion.png", "mistakes.csv"]);
    let mut there: Vec<_> =
        std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    there.sort();
    assert_eq!(there, written);
    let text = |name: &str| std::fs::read_to_string(dir.path().join(name)).unwrap();
    // Wilson's intervals of 1/2, 0/1 and 1/1; with three classes the top-5 error is 0.
    let classes = "class,name,n,top1_error,top1_low,top1_high,top5_error\n\
                   0,\"kit fox, Vulpes macrotis\",2,0.5,0.094531,0.905469,0\n\
                   1,\"says \"\"no\"\", twice\",1,0,0.000000,0.793451,0\n\
                   2,c,1,1,0.206549,1.000000,0\n";
    assert_eq!(text("classes.csv"), classes);
    let confusion = "true class,\"kit fox, Vulpes macrotis\",\"says \"\"no\"\", twice\",c\n\
                     \"kit fox, Vulpes macrotis\",1,1,0\n\
                     \"says \"\"no\"\", twice\",0,1,0\n\
                     c,1,0,0\n";
    assert_eq!(text("confusion.csv"), confusion);
    let mistakes = "path,true_class,predicted_class,predicted_posterior,true_posterior\n\
                    c/4.jpg,c,\"kit fox, Vulpes macrotis\",0.875000,0.000000\n\
                    \"a/3, copy.jpg\",\"kit fox, Vulpes macrotis\",\"says \"\"no\"\", twice\",0.625000,0.250000\n";
    assert_eq!(text("mistakes.csv"), mistakes);
}

/// Posteriors of one image per class, each of which is predicted as the next class.
fn next_class_each(classes: usize) -> Posteriors {
    let values = Array2::from_shape_fn((classes, classes), |(i, class)| {
        if class == (i + 1) % classes { 0.75 } else { 0.25 / (classes - 1) as f32 }
    });
    let mut posteriors = posteriors(values, &(0..classes as u32).collect::<Vec<_>>());
    posteriors.origin.classes =
        (0..classes).map(|i| format!("class number {i} of a long name, synonym")).collect();
    posteriors
}

/// The picture of the confusion matrix that is written, and the picture without names and numbers.
fn confusion_png(posteriors: &Posteriors) -> (Image, Image) {
    let dir = tempfile::tempdir().unwrap();
    Analysis::new(posteriors).unwrap().write(dir.path(), None).unwrap();
    let path = dir.path().join("confusion.png");
    let written = decode(&std::fs::read(&path).unwrap(), &path).unwrap();
    (written, confusion_picture(posteriors.confusion().unwrap().view()))
}

#[test]
fn confusion_picture_of_up_to_40_classes_has_names_and_numbers() {
    // Sides of the cells: 720 / 20 and 720 / 40.
    for (classes, cell) in [(20, 36), (40, 18)] {
        let (written, matrix) = confusion_png(&next_class_each(classes));
        assert_eq!(matrix.dim(), (720, 720, 3));
        // Above the matrix are two lines of 16 pixels and a margin of 8; to its left 28 letters of 8 pixels.
        let mut expected = Image::from_elem((760, 944, 3), 255);
        expected.slice_mut(s![40.., 224.., ..]).assign(&matrix);
        draw_text(&mut expected, "true class", 20, 4);
        draw_text(&mut expected, "predicted class", 2, 224);
        for i in 0..classes {
            // 24 letters of the first name.
            let name = format!("class number {i} of a long name");
            let line = format!("{i:>2} {}", &name[..24]);
            draw_text(&mut expected, &line, 40 + i * cell + cell / 2 - 8, 4);
            let half_width = if i < 10 { 4 } else { 8 };
            draw_text(&mut expected, &i.to_string(), 20, 224 + i * cell + cell / 2 - half_width);
        }
        assert!(written == expected, "{classes} classes");
    }
}

#[test]
fn confusion_picture_of_41_classes_has_no_names() {
    let (written, matrix) = confusion_png(&next_class_each(41));
    assert!(written == matrix);
}

/// Writes a data set; returns posteriors of it with three mistakes.
fn of_set(root: &std::path::Path) -> Posteriors {
    let files =
        [("ant/1.png", (40, 56)), ("bee/1.png", (56, 40)), ("cow/1.png", (2, 800)), ("cow/2.png", (40, 40))];
    write_set(root, &files);
    let values = array![[0.25, 0.625, 0.125], [0.0, 0.125, 0.875], [0.5, 0.25, 0.25], [0.0, 0.0, 1.0]];
    let mut posteriors = posteriors(values, &[0, 1, 2, 2]);
    posteriors.paths = files.iter().map(|(name, _)| format!("val/{name}")).collect();
    posteriors.origin.classes = vec!["ant, emmet".into(), "bee".into(), "cow, Bos taurus".into()];
    posteriors.origin.dataset = ImageSet::open(root, Split::Val).unwrap().hash().as_str().to_owned();
    posteriors
}

#[test]
fn mistakes_sheet_has_largest_posteriors_with_true_and_predicted_class() {
    let dir = tempfile::tempdir().unwrap();
    let posteriors = of_set(dir.path());
    let analysis = Analysis::new(&posteriors).unwrap();
    let tile =
        |name: &str, (h, w): (usize, usize), (shown_h, shown_w): (usize, usize), caption: [&str; 2]| {
            let shown = resize(&image(name, h, w), shown_h, shown_w, Interpolation::Bilinear).unwrap();
            (shown, caption.map(str::to_owned).to_vec())
        };
    // The longer side is at most 176 pixels: 176 * 40 / 56 = 125 on the shorter one, and 125 * 56 / 40 = 175.
    let tiles = [
        tile("bee/1.png", (56, 40), (175, 125), ["bee", "88 % cow"]),
        tile("ant/1.png", (40, 56), (125, 175), ["ant", "62 % bee"]),
        tile("cow/1.png", (2, 800), (1, 176), ["cow", "50 % ant"]),
    ];
    for most in [3, 2] {
        let sheet = analysis.mistakes_sheet(dir.path(), most).unwrap().unwrap();
        assert!(sheet == captioned_sheet(&tiles[..most], 6, 176).unwrap(), "{most} mistakes");
    }
    let sheet = analysis.mistakes_sheet(dir.path(), 9).unwrap().unwrap();
    let written = analysis.write(dir.path(), Some(&sheet)).unwrap();
    assert_eq!(written, ["classes.csv", "confusion.csv", "confusion.png", "mistakes.csv", "mistakes.png"]);
    let path = dir.path().join("mistakes.png");
    assert!(decode(&std::fs::read(&path).unwrap(), &path).unwrap() == sheet);
}

#[test]
fn mistakes_sheet_needs_the_data_set_and_mistakes() {
    let dir = tempfile::tempdir().unwrap();
    let mut posteriors = of_set(dir.path());
    posteriors.labels = vec![1, 2, 0, 2];
    assert!(Analysis::new(&posteriors).unwrap().mistakes_sheet(dir.path(), 9).unwrap().is_none());
    posteriors.labels = vec![0, 1, 2, 2];
    posteriors.paths[1] = "val/bee/9.png".into();
    let gone = Analysis::new(&posteriors).unwrap().mistakes_sheet(dir.path(), 9);
    assert!(matches!(gone, Err(Error::Config(what)) if what.contains("val/bee/9.png")));
    posteriors.origin.dataset = "another".into();
    let other = Analysis::new(&posteriors).unwrap().mistakes_sheet(dir.path(), 9);
    assert!(matches!(other, Err(Error::Config(what)) if what.contains("is not the data set")));
}

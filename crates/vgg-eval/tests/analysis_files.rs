//! The files of an analysis: every value of the CSV files, and which files there are.

mod common;

use common::posteriors;
use ndarray::array;
use vgg_eval::Analysis;

#[test]
fn csv_files_have_the_classes_confusions_and_mistakes() {
    let values = array![[0.5, 0.25, 0.25], [0.125, 0.75, 0.125], [0.25, 0.625, 0.125], [0.875, 0.125, 0.0]];
    let mut of = posteriors(values, &[0, 1, 0, 2]);
    of.origin.classes = vec!["n02119789".into(), "says \"no\", twice".into(), "c".into()];
    of.paths = vec!["a/1.jpg".into(), "b/2.jpg".into(), "a/3, copy.jpg".into(), "c/4.jpg".into()];
    let analysis = Analysis::new(&of).unwrap();
    // The WNID has its words.
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
    // Wilson's intervals of 1/2, 0/1 and 1/1; all classes are among the first five.
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
    let mistakes = "path,class,predicted,posterior,posterior_of_class\n\
                    c/4.jpg,c,\"kit fox, Vulpes macrotis\",0.875000,0.000000\n\
                    \"a/3, copy.jpg\",\"kit fox, Vulpes macrotis\",\"says \"\"no\"\", twice\",0.625000,0.250000\n";
    assert_eq!(text("mistakes.csv"), mistakes);
}

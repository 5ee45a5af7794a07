//! Dumped views: one file per view with the network's input pixels, and a list of the views.

mod common;

use common::{CROP, evaluation, options, write_set};
use serde_json::{Value, json};
use vgg_data::{ImageSet, Interpolation, Split};
use vgg_eval::{EvaluateOptions, Partition, Protocol, dump_views};

#[test]
fn dumped_views_are_the_network_input_pixels() {
    let dir = tempfile::tempdir().unwrap();
    write_set(
        dir.path(),
        &[
            ("ant/1.png", (40, 56)),
            ("ant/2.png", (56, 40)),
            ("bee/1.png", (48, 48)),
            ("bee/2.png", (40, 56)),
            ("cow/1.png", (40, 56)),
            ("cow/2.png", (40, 56)),
            ("cow/3.png", (56, 40)),
        ],
    );
    let image_set = ImageSet::open(dir.path(), Split::Val).unwrap();
    let to = dir.path().join("views");
    let base = evaluation(Protocol::Combined, &[40]);
    let part = EvaluateOptions { part: Partition { index: 1, count: 3 }, ..options(1) };
    dump_views(&image_set, &base, CROP, part, &to).unwrap();
    let list: Vec<Value> = vgg_files::read_json(&to.join("views.json")).unwrap();
    let views = base.views(CROP).unwrap();
    assert_eq!((list.len(), views.len()), (2 * 52, 52));
    for (entry, (index, number)) in list.iter().zip((2..4).flat_map(|i| (0..52).map(move |v| (i, v)))) {
        let view = views[number];
        let file = format!("{index}/{number}.png");
        let expected =
            json!({ "file": file, "image": image_set.path(index), "view": view.view, "weight": view.weight });
        assert_eq!(entry, &expected);
        let path = to.join(file);
        let pixels = vgg_data::decode(&std::fs::read(&path).unwrap(), &path).unwrap();
        let shown = view.view.apply(&image_set.image(index).unwrap(), Interpolation::Bilinear).unwrap();
        assert!(pixels == shown, "{}", path.display());
    }
    assert_eq!(list[0]["view"], json!({ "test_scale": 40, "region": "whole", "flip": false }));
    let grid = json!({ "grid": { "crop": 32, "row": 0, "column": 0 } });
    assert_eq!((&list[3]["view"]["region"], &list[3]["weight"]), (&grid, &json!(0.01)));
    // Other parts are not written.
    let mut names: Vec<_> = std::fs::read_dir(&to).unwrap().map(|e| e.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["2", "3", "views.json"]);
    let below_a_file = dump_views(&image_set, &base, CROP, options(1), &to.join("views.json/x"));
    let refused = below_a_file.unwrap_err().to_string();
    assert!(refused.contains("create") && refused.contains("views.json/x/0"), "{refused}");
}

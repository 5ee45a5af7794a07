//! The synthetic data set: bounding boxes, object sizes, seeds, resumption and protection of other files.

use vgg_data::synthetic::{CLASSES, Scene, SyntheticConfig, generate, is_made};
use vgg_data::{ImageSet, Split};

#[test]
fn objects_are_in_their_boxes_and_sizes_vary_by_a_factor_of_four() {
    let mut sizes = Vec::new();
    for number in 0..80 {
        let class = number as usize % CLASSES.len();
        let scene = Scene::draw(1, number, class).render();
        let (h, w, _) = scene.image.dim();
        let [left, top, right, bottom] = scene.bounding_box;
        assert!(left < right && right <= w && top < bottom && bottom <= h, "{:?}", scene.bounding_box);
        assert!((300..=500).contains(&h) && (300..=500).contains(&w), "{h} x {w}");
        sizes.push((right - left).max(bottom - top) as f64 / h.min(w) as f64);
        // The same scene with an object of another class differs within the boxes, and only there.
        let other = Scene::draw(1, number, (class + 1) % CLASSES.len()).render();
        let [l, t, r, b] = other.bounding_box;
        let (left, top, right, bottom) = (left.min(l), top.min(t), right.max(r), bottom.max(b));
        assert_ne!(scene.image, other.image);
        for ((y, x, c), value) in scene.image.indexed_iter() {
            // The antialiased edge extends a few pixels beyond the box.
            let inside = y + 3 >= top && y < bottom + 3 && x + 3 >= left && x < right + 3;
            assert!(inside || *value == other.image[[y, x, c]], "scene {number} differs at {x}, {y}");
        }
    }
    assert!(sizes.iter().all(|size| size.is_finite()));
    let (least, most) = sizes.iter().fold((f64::MAX, 0.0_f64), |(a, b), s| (a.min(*s), b.max(*s)));
    assert!(most / least > 3.0 && most <= 1.0, "from {least} to {most} of the shorter side");
}

#[test]
fn seed_determines_the_set_and_generation_resumes() {
    let dir = tempfile::tempdir().unwrap();
    let set = SyntheticConfig { seed: 1, train_per_class: 1, val_per_class: 1 };
    let (one, two) = (dir.path().join("one"), dir.path().join("two"));
    generate(&one, &set, 2, &|_, _| ()).unwrap();
    generate(&two, &SyntheticConfig { seed: 2, ..set }, 2, &|_, _| ()).unwrap();
    assert!(is_made(&one, &set) && !is_made(&two, &set));
    let image = |root| ImageSet::open(root, Split::Val).unwrap().image(0).unwrap();
    assert_ne!(image(&one), image(&two));
    // Another recipe changes no existing file; an interrupted generation of the same recipe resumes.
    assert!(generate(&one, &SyntheticConfig { seed: 2, ..set }, 2, &|_, _| ()).is_err());
    std::fs::rename(one.join("synthetic.json"), one.join("synthetic-unfinished.json")).unwrap();
    let missing = one.join("val/ringed-disc/00000.jpg");
    let before = std::fs::read(&missing).unwrap();
    std::fs::remove_file(&missing).unwrap();
    assert!(!is_made(&one, &set));
    generate(&one, &set, 2, &|_, _| ()).unwrap();
    assert!(is_made(&one, &set) && std::fs::read(&missing).unwrap() == before);
    assert!(!one.join("synthetic-unfinished.json").exists());
}

//! Pictures of confusion matrices and score maps: pixel colours by hand.

mod common;

use common::{CROP, PREPROCESSING, batch_of_one, cells, image, network, softmax};
use ndarray::{Array2, array};
use vgg_data::{Geometry, Image, Interpolation, Region, View};
use vgg_eval::{Error, Evaluation, Protocol, confusion_picture, score_map, score_map_picture};

fn pixel(picture: &Image, y: usize, x: usize) -> [u8; 3] {
    [picture[[y, x, 0]], picture[[y, x, 1]], picture[[y, x, 2]]]
}

#[test]
fn confusion_cells_are_coloured_by_the_square_root_of_their_fraction() {
    let picture = confusion_picture(array![[1, 3, 0], [0, 0, 0], [0, 16, 9]].view());
    assert_eq!(picture.dim(), (720, 720, 3));
    // From white at 0 to (8, 48, 107) at 1: a fraction of 1/4 is half way, 16/25 is four fifths of the way.
    let white = [255, 255, 255];
    let grey = [200, 200, 200];
    let cells = [
        [[132, 152, 181], [41, 76, 127], white],
        [grey, grey, grey],
        [white, [57, 89, 137], [107, 131, 166]],
    ];
    for (row, colours) in cells.iter().enumerate() {
        for (column, colour) in colours.iter().enumerate() {
            // Corners and centre of the cell, inside the lines.
            for (y, x) in [(0, 0), (0, 238), (238, 0), (238, 238), (120, 120)] {
                let found = pixel(&picture, row * 240 + y, column * 240 + x);
                assert_eq!(found, *colour, "row {row}, column {column}, at {y}, {x}");
            }
        }
    }
}

#[test]
fn lines_separate_the_cells_of_classes_that_have_images() {
    let picture = confusion_picture(array![[1, 3, 0], [0, 0, 0], [0, 16, 9]].view());
    for at in [0, 100, 239, 500, 719] {
        for line in [239, 719] {
            assert_eq!(pixel(&picture, line, at), [220; 3], "row {line}");
        }
    }
    for line in [239, 479, 719] {
        assert_eq!(pixel(&picture, 100, line), [220; 3], "column {line}");
        // Cells of a class without images have no lines.
        assert_eq!(pixel(&picture, 300, line), [200; 3], "column {line}");
    }
    assert_eq!(pixel(&picture, 479, 300), [200; 3]);
}

#[test]
fn only_cells_of_eight_pixels_or_more_have_lines() {
    // The diagonal, except that the image of class 1 is predicted as class 0.
    let matrix = |classes: usize| {
        Array2::from_shape_fn((classes, classes), |(row, column)| {
            u32::from(if row == 1 { column == 0 } else { row == column })
        })
    };
    let eight = confusion_picture(matrix(90).view());
    assert_eq!(eight.dim(), (720, 720, 3));
    assert_eq!(
        (pixel(&eight, 0, 6), pixel(&eight, 0, 7), pixel(&eight, 7, 3)),
        ([8, 48, 107], [220; 3], [220; 3])
    );
    assert_eq!((pixel(&eight, 8, 0), pixel(&eight, 0, 8)), ([8, 48, 107], [255; 3]));
    let seven = confusion_picture(matrix(91).view());
    assert_eq!(seven.dim(), (637, 637, 3));
    assert_eq!(
        (pixel(&seven, 6, 6), pixel(&seven, 13, 6), pixel(&seven, 6, 7)),
        ([8, 48, 107], [8, 48, 107], [255; 3])
    );
    // Every class has at least one pixel.
    assert_eq!(confusion_picture(matrix(721).view()).dim(), (721, 721, 3));
    assert_eq!(confusion_picture(Array2::zeros((0, 0)).view()).dim(), (720, 720, 3));
}

/// `round(0.45 * pixel + 0.55 * colour)`.
fn over(pixel: [u8; 3], colour: [u8; 3]) -> [u8; 3] {
    std::array::from_fn(|c| (0.45 * f64::from(pixel[c]) + 0.55 * f64::from(colour[c])).round() as u8)
}

/// Colours of the colour map at 0, 1/3, 2/3 and 1.
const STOPS: [[u8; 3]; 4] = [[68, 1, 84], [49, 104, 142], [53, 183, 121], [253, 231, 37]];

/// A score map over an image of one colour. Windows have 33 pixels, so the centres of cells are pixels 16,
/// 48, 80, ...
fn drawn(h: usize, w: usize, colour: [u8; 3], map: Array2<f32>) -> Image {
    let image = Image::from_shape_fn((h, w, 3), |(_, _, c)| colour[c]);
    score_map_picture(&image, map.view(), 33, 32)
}

#[test]
fn colour_map_interpolates_four_stops() {
    let black = [0, 0, 0];
    for (value, colour) in [
        (0.0, STOPS[0]),
        (1.0 / 3.0, STOPS[1]),
        (2.0 / 3.0, STOPS[2]),
        (1.0, STOPS[3]),
        // Halfway: (51, 143.5, 131.5), and (58.5, 52.5, 113), (153, 207, 79).
        (0.5, [51, 144, 132]),
        (1.0 / 6.0, [59, 53, 113]),
        (5.0 / 6.0, [153, 207, 79]),
        (-0.5, STOPS[0]),
        (1.5, STOPS[3]),
    ] {
        let picture = drawn(33, 33, black, array![[value]]);
        assert_eq!(pixel(&picture, 16, 16), over(black, colour), "{value}");
        assert_eq!(
            (pixel(&picture, 0, 32), pixel(&picture, 32, 0)),
            (over(black, colour), over(black, colour))
        );
    }
}

#[test]
fn a_score_map_is_blended_with_weight_055() {
    let colour = [200, 100, 20];
    // 0.45 * (200, 100, 20) + 0.55 * (68, 1, 84), and the same with (253, 231, 37).
    assert_eq!(pixel(&drawn(33, 33, colour, array![[0.0]]), 5, 7), [127, 46, 55]);
    assert_eq!(pixel(&drawn(33, 33, colour, array![[1.0]]), 5, 7), [229, 172, 29]);
}

#[test]
fn cells_are_drawn_at_the_centres_of_their_windows() {
    let third = 1.0 / 3.0;
    let map = array![[0.0, third, 1.0], [2.0 * third, 0.0, third]];
    let stops = [[0, 1, 3], [2, 0, 1]];
    let colour = [30, 60, 90];
    let picture = drawn(65, 97, colour, map);
    assert_eq!(picture.dim(), (65, 97, 3));
    for (row, stops) in stops.iter().enumerate() {
        for (column, stop) in stops.iter().enumerate() {
            let found = pixel(&picture, 16 + 32 * row, 16 + 32 * column);
            assert_eq!(found, over(colour, STOPS[*stop]), "row {row}, column {column}");
        }
    }
    // Beyond the outermost centres the value is constant.
    for (y, x, stop) in [(0, 0, 0), (0, 96, 3), (64, 0, 2), (64, 96, 1), (0, 48, 1), (64, 48, 0), (48, 96, 1)]
    {
        assert_eq!(pixel(&picture, y, x), over(colour, STOPS[stop]), "at {y}, {x}");
    }
}

#[test]
fn values_between_centres_are_interpolated() {
    let black = [0, 0, 0];
    let picture = drawn(65, 97, black, array![[0.0, 0.0, 1.0], [1.0, 1.0, 1.0]]);
    // The first column runs from 0 to 1: 1/4 at row 24, 1/2 at 32, 3/4 at 40.
    assert_eq!(pixel(&picture, 32, 16), over(black, [51, 144, 132]));
    // 3/4 of the way from stop 0 to 1, and 1/4 from stop 2 to 3: (53.75, 78.25, 127.5) and (103, 195, 100).
    assert_eq!(pixel(&picture, 24, 16), over(black, [54, 78, 128]));
    assert_eq!(pixel(&picture, 40, 16), over(black, [103, 195, 100]));
    // Between columns 1 and 2 of row 0, and in the middle of four cells, three of which are 1.
    assert_eq!(pixel(&picture, 16, 64), over(black, [51, 144, 132]));
    assert_eq!(pixel(&picture, 16, 56), over(black, [54, 78, 128]));
    assert_eq!(pixel(&picture, 32, 64), over(black, [103, 195, 100]));
}

#[test]
fn pixels_beyond_the_last_window_have_its_value() {
    // One window of 32 pixels, and 31 pixels beyond it.
    for (h, w) in [(63, 32), (32, 63), (63, 63)] {
        let picture = score_map_picture(&Image::zeros((h, w, 3)), array![[0.5]].view(), 32, 32);
        let first = pixel(&picture, 0, 0);
        assert!((0..h).all(|y| (0..w).all(|x| pixel(&picture, y, x) == first)), "{h} x {w}");
    }
}

#[test]
fn the_centre_of_an_even_window_is_between_pixels() {
    let image = Image::zeros((32, 64, 3));
    let picture = score_map_picture(&image, array![[0.0, 1.0]].view(), 32, 32);
    // The centres are at 16 and 48. The centre of pixel 31, 31.5, is 15.5/32 of the way, pixel 32 16.5/32.
    let at = |value: f64| {
        let (low, part) = ((value * 3.0) as usize, (value * 3.0).fract());
        let colour = std::array::from_fn(|c| {
            (f64::from(STOPS[low][c]) * (1.0 - part) + f64::from(STOPS[low + 1][c]) * part).round() as u8
        });
        over([0, 0, 0], colour)
    };
    for x in 16..48 {
        assert_eq!(pixel(&picture, 10, x), at((x as f64 - 15.5) / 32.0), "column {x}");
    }
    assert_eq!(
        (pixel(&picture, 10, 15), pixel(&picture, 10, 48)),
        (over([0; 3], STOPS[0]), over([0; 3], STOPS[3]))
    );
}

fn evaluation(protocol: Protocol, test_scales: &[usize]) -> Evaluation {
    Evaluation { interpolation: Interpolation::Bicubic, ..common::evaluation(protocol, test_scales) }
}

#[test]
fn a_score_map_is_the_posterior_of_a_class_at_the_first_scale() {
    let image = image("map", 40, 60);
    let base = evaluation(Protocol::Dense, &[96, 64]);
    let model = base.prepare(network(4), PREPROCESSING, "").unwrap();
    let shown = View { test_scale: 96, geometry: Geometry::Paper, region: Region::Whole, flip: false }
        .apply(&image, Interpolation::Bicubic)
        .unwrap();
    let dense = network(4).into_fully_convolutional().unwrap();
    let scores = cells(&dense.score_map(&batch_of_one(&shown, PREPROCESSING)).unwrap());
    // 96 x 144 pixels: 3 x 4 cells.
    assert_eq!(scores.len(), 12);
    let mut pictures = Vec::new();
    for class in 0..4 {
        let map: Vec<f32> = scores.iter().map(|cell| softmax(cell)[class] as f32).collect();
        let map = Array2::from_shape_vec((3, 4), map).unwrap();
        let picture = score_map(&model, &image, &base, class).unwrap();
        let expected = score_map_picture(&shown, map.view(), CROP, 32);
        assert_eq!(picture.dim(), expected.dim());
        // Posteriors have an error of 1e-6, so a colour may be rounded differently.
        assert!(picture.iter().zip(&expected).all(|(a, b)| a.abs_diff(*b) <= 1), "class {class}");
        pictures.push(picture);
    }
    let apart = |a: &Image, b: &Image| a.iter().zip(b).filter(|(a, b)| a.abs_diff(**b) > 8).count();
    for class in 1..4 {
        assert!(apart(&pictures[0], &pictures[class]) > 100, "classes 0 and {class} have similar pictures");
    }
}

#[test]
fn a_score_map_needs_a_dense_network_and_a_valid_scale() {
    let image = image("map", 40, 60);
    let of = |base: Evaluation| {
        let model = base.prepare(network(4), PREPROCESSING, "").unwrap();
        score_map(&model, &image, &base, 0)
    };
    assert!(matches!(of(evaluation(Protocol::Centre, &[96])), Err(Error::Config(_))));
    assert!(matches!(of(evaluation(Protocol::Dense, &[])), Err(Error::Config(_))));
    assert!(matches!(of(evaluation(Protocol::Dense, &[31])), Err(Error::Config(_))));
    assert!(of(evaluation(Protocol::Dense, &[32])).is_ok());
}

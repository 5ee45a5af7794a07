//! Pictures of confusion matrices and score maps.

use ndarray::{ArrayView2, Axis, s};
use vgg_data::{Image, Region, View};
use vgg_tensor::ops;

use crate::{EvalModel, Evaluation, Result};

/// Approximate side of a picture of a confusion matrix, in pixels.
const SIDE: usize = 720;

/// Draws a confusion matrix: rows are true classes, columns predicted classes. Darker cells have a larger
/// fraction of the class's images; classes without images are grey.
pub fn confusion_picture(counts: ArrayView2<u32>) -> Image {
    let classes = counts.nrows().max(1);
    let cell = (SIDE / classes).max(1);
    let mut picture = Image::from_elem((classes * cell, classes * cell, 3), 200);
    for (y, row) in counts.rows().into_iter().enumerate() {
        let all: u32 = row.sum();
        for (x, count) in row.iter().enumerate().filter(|_| all > 0) {
            // The square root makes rare confusions visible.
            let colour = ramp(1.0 - (*count as f32 / all as f32).sqrt());
            let mut to = picture.slice_mut(s![y * cell..(y + 1) * cell, x * cell..(x + 1) * cell, ..]);
            to.lanes_mut(Axis(2)).into_iter().for_each(|mut pixel| pixel.assign(&ndarray::aview1(&colour)));
            if cell >= 8 {
                // Lines between cells.
                to.slice_mut(s![cell - 1, .., ..]).fill(220);
                to.slice_mut(s![.., cell - 1, ..]).fill(220);
            }
        }
    }
    picture
}

/// Draws the dense score map of a class, after softmax in each cell, over the image, which is rescaled to the
/// first test scale. `model` must be dense.
///
/// # Errors
/// As [`crate::classify`]; [`crate::Error::Config`] if the model takes only crops.
pub fn score_map(model: &EvalModel, image: &Image, evaluation: &Evaluation, class: usize) -> Result<Image> {
    let network = model.dense_network()?;
    let preprocessing = model.preprocessing;
    let (crop, stride) = (model.spec().crop, model.spec().stride());
    evaluation.views(crop)?;
    let view = View {
        test_scale: evaluation.test_scales[0],
        geometry: evaluation.geometry,
        region: Region::Whole,
        flip: false,
    };
    let shown = view.apply(image, evaluation.interpolation)?;
    let pixels = shown.view().insert_axis(Axis(0));
    let offset = ndarray::aview1(&preprocessing.offset).insert_axis(Axis(0));
    let x = ops::normalize(pixels, offset, preprocessing.scale, network.device())?;
    let map = ops::softmax(&network.score_map(&x)?)?.to_array();
    let of_class = map.index_axis(Axis(map.ndim() - 1), class).to_owned();
    let cells = of_class.into_dimensionality::<ndarray::Ix3>();
    let cells = cells.map_err(|e| crate::Error::Internal(format!("score map: {e}")))?;
    Ok(score_map_picture(&shown, cells.index_axis(Axis(0), 0), crop, stride))
}

/// Draws a map of values between 0 and 1 over its image: purple is low, yellow is high. Each cell is at the
/// centre of its window, whose side is `crop`; values in between are interpolated.
pub fn score_map_picture(image: &Image, map: ArrayView2<f32>, crop: usize, stride: usize) -> Image {
    let (h, w, _) = image.dim();
    let half = crop as f32 / 2.0;
    let (rows, columns) = map.dim();
    Image::from_shape_fn((h, w, 3), |(y, x, c)| {
        let place = |at: usize, cells: usize| {
            let cell = ((at as f32 + 0.5 - half) / stride as f32).clamp(0.0, cells.saturating_sub(1) as f32);
            let low = cell.floor() as usize;
            (low, (low + 1).min(cells.saturating_sub(1)), cell - cell.floor())
        };
        let ((top, bottom, v), (left, right, u)) = (place(y, rows), place(x, columns));
        let across = |row: usize| map[[row, left]] * (1.0 - u) + map[[row, right]] * u;
        let value = across(top) * (1.0 - v) + across(bottom) * v;
        let colour = f32::from(viridis(value)[c]);
        (0.45 * f32::from(image[[y, x, c]]) + 0.55 * colour).round() as u8
    })
}

/// Colour ramp from dark blue (0) to white (1).
fn ramp(lightness: f32) -> [u8; 3] {
    let mix = |dark: f32| (dark + (255.0 - dark) * lightness.clamp(0.0, 1.0)).round() as u8;
    [mix(8.0), mix(48.0), mix(107.0)]
}

/// The viridis colour map: from purple (low) over green to yellow (high). It is readable with red-green
/// colour blindness.
fn viridis(value: f32) -> [u8; 3] {
    const STOPS: [[f32; 3]; 4] =
        [[68.0, 1.0, 84.0], [49.0, 104.0, 142.0], [53.0, 183.0, 121.0], [253.0, 231.0, 37.0]];
    let at = value.clamp(0.0, 1.0) * 3.0;
    let low = (at as usize).min(2);
    let part = at - low as f32;
    std::array::from_fn(|c| (STOPS[low][c] * (1.0 - part) + STOPS[low + 1][c] * part).round() as u8)
}

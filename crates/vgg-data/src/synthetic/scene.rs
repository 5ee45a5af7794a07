//! A scene of the synthetic data set: [`Scene::draw`] samples its content, [`Scene::render`] the pixels.

use libm::{cosf, exp, log, sinf};

use super::object::{outline, texture};
use crate::{Image, KeyedRng, Purpose};

/// Smallest and largest side of an image, in pixels.
const SIDES: [usize; 2] = [300, 500];
/// Largest aspect ratio.
const ASPECT: f64 = 1.5;
/// Smallest and largest diameter of the object, relative to the shorter side.
const DIAMETER: [f64; 2] = [0.25, 1.0];
/// Largest rotation of the object, in radians.
const TILT: f64 = 0.4;

type Colour = [f32; 3];

/// A scene before it is rendered.
#[derive(Debug, Clone)]
pub struct Scene {
    height: usize,
    width: usize,
    object: Placed,
    background: Background,
    clutter: Vec<Clutter>,
}

/// A rendered scene.
#[derive(Debug, Clone)]
pub struct ScenePixels {
    /// The pixels.
    pub image: Image,
    /// Bounding box of the object: left, top, right, bottom; right and bottom are exclusive.
    pub bounding_box: [usize; 4],
}

#[derive(Debug, Clone)]
struct Placed {
    class: usize,
    centre: [f32; 2],
    radius: f32,
    angle: f32,
    colours: [Colour; 2],
}

#[derive(Debug, Clone)]
struct Background {
    corners: [Colour; 2],
    angle: f32,
    noise: [Noise; 2],
}

/// Value noise: random values on a grid with cells of `cell` pixels, interpolated linearly.
#[derive(Debug, Clone)]
struct Noise {
    seed: u32,
    cell: f32,
    amplitude: f32,
}

/// A distractor: a rectangle or an ellipse with a colour gradient and noise.
#[derive(Debug, Clone)]
struct Clutter {
    centre: [f32; 2],
    half: [f32; 2],
    angle: f32,
    round: bool,
    colours: [Colour; 2],
    noise: Noise,
}

impl Scene {
    /// Samples scene `number` of a set, with an object of class index `class`.
    pub fn draw(seed: u64, number: u64, class: usize) -> Scene {
        let s = &mut KeyedRng::new(seed, 0, number, Purpose::Scene);
        let (mut height, mut width) =
            (s.random_range(SIDES[0]..=SIDES[1]), s.random_range(SIDES[0]..=SIDES[1]));
        let most = (height.min(width) as f64 * ASPECT) as usize;
        (height, width) = (height.min(most), width.min(most));
        let short = height.min(width) as f64;
        let diameter = short * log_uniform(s, DIAMETER);
        let inside =
            |s: &mut KeyedRng, side: usize| s.uniform(0.5 * diameter, side as f64 - 0.5 * diameter) as f32;
        let object = Placed {
            class,
            centre: [inside(s, width), inside(s, height)],
            radius: (0.5 * diameter) as f32,
            angle: s.uniform(-TILT, TILT) as f32,
            colours: contrasting(s),
        };
        let base = colour(s);
        let background = Background {
            corners: [near(s, base), near(s, base)],
            angle: angle(s),
            noise: [noise(s, [18.0, 90.0], [4.0, 24.0]), noise(s, [2.5, 9.0], [2.0, 16.0])],
        };
        let clutter = (0..s.random_range(4..=10)).map(|_| Clutter::draw(s, height, width, short)).collect();
        Scene { height, width, object, background, clutter }
    }

    /// Renders the pixels and computes the object's bounding box.
    pub fn render(&self) -> ScenePixels {
        let mut canvas = Canvas::new(self.height, self.width);
        self.background.paint(&mut canvas);
        for clutter in &self.clutter {
            clutter.paint(&mut canvas);
        }
        let bounding_box = self.object.paint(&mut canvas);
        ScenePixels { image: canvas.into_image(), bounding_box }
    }
}

impl Clutter {
    fn draw(s: &mut KeyedRng, height: usize, width: usize, short: f64) -> Clutter {
        let long = short * log_uniform(s, [0.05, 0.45]);
        let thin = long * log_uniform(s, [0.15, 1.0]);
        Clutter {
            centre: [s.uniform(0.0, width as f64) as f32, s.uniform(0.0, height as f64) as f32],
            half: [(0.5 * long) as f32, (0.5 * thin) as f32],
            angle: angle(s),
            round: s.random_bool(),
            colours: [colour(s), colour(s)],
            noise: noise(s, [2.5, 20.0], [0.0, 60.0]),
        }
    }

    fn paint(&self, canvas: &mut Canvas) {
        let reach = self.half[0].max(self.half[1]) * 1.42;
        let (sin, cos) = (sinf(self.angle), cosf(self.angle));
        // The noise grid covers the square around the distractor.
        let side = 2 * reach as usize + 4;
        let (left, top) = (self.centre[0] - reach - 1.0, self.centre[1] - reach - 1.0);
        let grid = self.noise.grid(side, side);
        canvas.for_each_near(self.centre, reach, |dx, dy, x, y| {
            let (u, v) = ((cos * dx + sin * dy) / self.half[0], (cos * dy - sin * dx) / self.half[1]);
            let edge = if self.round { (u * u + v * v).sqrt() } else { u.abs().max(v.abs()) };
            let cover = ((1.0 - edge) * self.half[1] + 0.5).clamp(0.0, 1.0);
            if cover == 0.0 {
                return None;
            }
            let shade = 0.5 + 0.5 * u.clamp(-1.0, 1.0);
            Some((mix(self.colours, shade, grid.at(x as f32 - left, y as f32 - top)), cover))
        });
    }
}

impl Background {
    fn paint(&self, canvas: &mut Canvas) {
        let (sin, cos) = (sinf(self.angle), cosf(self.angle));
        let reach = (canvas.width + canvas.height) as f32;
        let [coarse, fine] = [0, 1].map(|i| self.noise[i].grid(canvas.width, canvas.height));
        let centre = [0.5 * canvas.width as f32, 0.5 * canvas.height as f32];
        canvas.for_each_near(centre, reach, |dx, dy, x, y| {
            let shade = (0.5 + 1.4 * (cos * dx + sin * dy) / reach).clamp(0.0, 1.0);
            Some((mix(self.corners, shade, coarse.at(x as f32, y as f32) + fine.at(x as f32, y as f32)), 1.0))
        });
    }
}

impl Placed {
    fn paint(&self, canvas: &mut Canvas) -> [usize; 4] {
        let (sin, cos) = (sinf(self.angle), cosf(self.angle));
        let mut found = [usize::MAX, usize::MAX, 0, 0];
        canvas.for_each_near(self.centre, self.radius + 1.0, |dx, dy, x, y| {
            let (u, v) = ((cos * dx + sin * dy) / self.radius, (cos * dy - sin * dx) / self.radius);
            let cover = (0.5 - outline(self.class, u, v) * self.radius).clamp(0.0, 1.0);
            if cover == 0.0 {
                return None;
            }
            if cover >= 0.5 {
                found = [found[0].min(x), found[1].min(y), found[2].max(x + 1), found[3].max(y + 1)];
            }
            Some((mix(self.colours, texture(self.class, u, v), 0.0), cover))
        });
        found
    }
}

impl Noise {
    fn grid(&self, width: usize, height: usize) -> Grid {
        let columns = (width as f32 / self.cell) as usize + 2;
        let rows = (height as f32 / self.cell) as usize + 2;
        let mut state = self.seed;
        let values = (0..columns * rows)
            .map(|_| {
                state = state.wrapping_mul(747_796_405).wrapping_add(2_891_336_453);
                let word = ((state >> ((state >> 28) + 4)) ^ state).wrapping_mul(277_803_737);
                self.amplitude * (((word >> 22) ^ word) >> 8) as f32 / 8_388_608.0 - self.amplitude
            })
            .collect();
        Grid { values, columns, per_pixel: 1.0 / self.cell }
    }
}

struct Grid {
    values: Vec<f32>,
    columns: usize,
    per_pixel: f32,
}

impl Grid {
    /// Value at a pixel, interpolated linearly between grid points.
    fn at(&self, x: f32, y: f32) -> f32 {
        let (gx, gy) = (x * self.per_pixel, y * self.per_pixel);
        let (i, j) = (gx as usize, gy as usize);
        let (a, b) = (gx - i as f32, gy - j as f32);
        let top = &self.values[j * self.columns + i..][..2];
        let low = &self.values[(j + 1) * self.columns + i..][..2];
        (1.0 - b) * (top[0] + a * (top[1] - top[0])) + b * (low[0] + a * (low[1] - low[0]))
    }
}

struct Canvas {
    width: usize,
    height: usize,
    pixels: Vec<Colour>,
}

impl Canvas {
    fn new(height: usize, width: usize) -> Canvas {
        Canvas { width, height, pixels: vec![[0.0; 3]; height * width] }
    }

    /// Paints the pixels of the square within `reach` of `centre`: `paint(dx, dy, x, y)` returns colour and
    /// coverage, or `None`.
    fn for_each_near(
        &mut self,
        centre: [f32; 2],
        reach: f32,
        mut paint: impl FnMut(f32, f32, usize, usize) -> Option<(Colour, f32)>,
    ) {
        let range = |c: f32, side: usize| {
            let low = (c - reach).max(0.0) as usize;
            low..((c + reach).max(0.0).ceil() as usize + 1).min(side)
        };
        for y in range(centre[1], self.height) {
            for x in range(centre[0], self.width) {
                let (dx, dy) = (x as f32 + 0.5 - centre[0], y as f32 + 0.5 - centre[1]);
                if let Some((colour, cover)) = paint(dx, dy, x, y) {
                    let pixel = &mut self.pixels[y * self.width + x];
                    for c in 0..3 {
                        pixel[c] += cover * (colour[c] - pixel[c]);
                    }
                }
            }
        }
    }

    fn into_image(self) -> Image {
        let (h, w) = (self.height, self.width);
        let bytes = self.pixels.iter().flatten().map(|v| v.clamp(0.0, 255.0) as u8).collect();
        match Image::from_shape_vec((h, w, 3), bytes) {
            Ok(image) => image,
            Err(e) => unreachable!("a canvas has three values per pixel: {e}"),
        }
    }
}

fn mix(colours: [Colour; 2], share: f32, add: f32) -> Colour {
    [0, 1, 2].map(|c| colours[0][c] + share * (colours[1][c] - colours[0][c]) + add)
}

fn log_uniform(s: &mut KeyedRng, [low, high]: [f64; 2]) -> f64 {
    exp(s.uniform(log(low), log(high)))
}

fn angle(s: &mut KeyedRng) -> f32 {
    s.uniform(0.0, std::f64::consts::TAU) as f32
}

fn colour(s: &mut KeyedRng) -> Colour {
    [(); 3].map(|()| s.uniform(0.0, 255.0) as f32)
}

/// A colour near `base`, so that the colours of a background are similar.
fn near(s: &mut KeyedRng, base: Colour) -> Colour {
    base.map(|v| (55.0 + 0.57 * v) + s.uniform(-35.0, 35.0) as f32)
}

/// Two random colours, the first clearly darker, so that a texture of them is visible.
fn contrasting(s: &mut KeyedRng) -> [Colour; 2] {
    let luma = |c: &Colour| 0.3 * c[0] + 0.59 * c[1] + 0.11 * c[2];
    loop {
        let pair = [colour(s), colour(s)];
        if luma(&pair[1]) - luma(&pair[0]) > 90.0 {
            return pair;
        }
    }
}

fn noise(s: &mut KeyedRng, cell: [f64; 2], amplitude: [f64; 2]) -> Noise {
    Noise {
        seed: s.random_range(0..=u32::MAX as usize - 1) as u32,
        cell: log_uniform(s, cell) as f32,
        amplitude: s.uniform(amplitude[0], amplitude[1]) as f32,
    }
}

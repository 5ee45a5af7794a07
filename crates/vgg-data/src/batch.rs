//! A batch of training images on its way to a device.

use ndarray::{Array2, Array4};

use crate::Error;

/// Crops of one size with everything that training needs.
#[derive(Debug, Clone)]
pub struct Batch {
    /// `[N, crop, crop, 3]`, 0..255.
    pub pixels: Array4<u8>,
    /// `[N, 3]`: what is added to the pixels of an image, colour shift minus mean, 0..255.
    pub offset: Array2<f32>,
    /// Class indices.
    pub targets: Vec<u32>,
    /// Which samples of the data set.
    pub ids: Vec<usize>,
    /// Images that could not be decoded and were left out.
    pub skipped: Vec<BadImage>,
}

/// An image that was left out.
#[derive(Debug, Clone)]
pub struct BadImage {
    /// Which sample.
    pub id: usize,
    /// Path and reason.
    pub error: Error,
}

impl Batch {
    /// Black images of class 0, to be filled in, or to plan with.
    pub fn blank(images: usize, [height, width]: [usize; 2]) -> Batch {
        Batch {
            pixels: Array4::zeros([images, height, width, 3]),
            offset: Array2::zeros([images, 3]),
            targets: vec![0; images],
            ids: (0..images).collect(),
            skipped: Vec::new(),
        }
    }

    /// Number of images.
    pub fn len(&self) -> usize {
        self.targets.len()
    }

    /// Whether every image of it was left out.
    pub fn is_empty(&self) -> bool {
        self.targets.is_empty()
    }
}

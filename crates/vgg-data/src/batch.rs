//! A batch of training images in host memory.

use ndarray::{Array2, Array4};

use crate::Error;

/// Crops of equal size, with their offsets and targets.
#[derive(Debug, Clone)]
pub struct Batch {
    /// Pixels `[N, crop, crop, 3]`, 0..255.
    pub pixels: Array4<u8>,
    /// RGB offset of each image, `[N, 3]`, added to its pixels of 0..255: PCA colour jitter minus mean.
    pub offset: Array2<f32>,
    /// Class indices.
    pub targets: Vec<u32>,
    /// Indices of the images in the [`crate::ImageSet`].
    pub ids: Vec<usize>,
    /// Images that could not be decoded and are not in the batch.
    pub skipped: Vec<BadImage>,
}

/// An image that was skipped.
#[derive(Debug, Clone)]
pub struct BadImage {
    /// Index of the image in the [`crate::ImageSet`].
    pub id: usize,
    /// The error, with path and reason.
    pub error: Error,
}

impl Batch {
    /// A batch of black images of class 0, to fill in or for a dry run.
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

    /// Whether the batch has no images, which happens if all were skipped.
    pub fn is_empty(&self) -> bool {
        self.targets.is_empty()
    }
}

//! What networks of other libraries are shown.

use crate::naming::Library;

/// A custom of preparing pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pixels {
    /// torchvision's: 0..1, mean subtracted, divided by a deviation; RGB.
    Torchvision,
    /// The authors' and Keras's: 0..255, mean subtracted; BGR.
    CaffeBgr,
    /// As the authors', but RGB.
    CaffeRgb,
}

impl Pixels {
    /// The custom of a library.
    pub(crate) fn of(library: Library) -> Pixels {
        match library {
            Library::Caffe | Library::Keras => Pixels::CaffeBgr,
            Library::TensorFlow => Pixels::CaffeRgb,
            Library::Native | Library::Torchvision | Library::Timm => Pixels::Torchvision,
        }
    }

    pub(crate) fn is_bgr(self) -> bool {
        self == Pixels::CaffeBgr
    }

    /// Mean of 0..255 in the order R, G, B; factor; divisors in that order; training sides.
    pub fn convention(self) -> ([f32; 3], f32, [f32; 3], Vec<usize>) {
        match self {
            Pixels::Torchvision => {
                ([0.485 * 255.0, 0.456 * 255.0, 0.406 * 255.0], 1.0 / 255.0, [0.229, 0.224, 0.225], vec![256])
            }
            Pixels::CaffeBgr | Pixels::CaffeRgb => {
                ([123.68, 116.779, 103.939], 1.0, [1.0; 3], vec![256, 512])
            }
        }
    }
}

impl std::str::FromStr for Pixels {
    type Err = String;
    fn from_str(name: &str) -> Result<Pixels, String> {
        match name {
            "torchvision" => Ok(Pixels::Torchvision),
            "caffe-bgr" => Ok(Pixels::CaffeBgr),
            "caffe-rgb" => Ok(Pixels::CaffeRgb),
            _ => Err("it is torchvision, caffe-bgr or caffe-rgb".into()),
        }
    }
}

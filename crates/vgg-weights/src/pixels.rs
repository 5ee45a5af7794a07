//! Preprocessing conventions of other libraries.

use crate::naming::Library;

/// A convention for the preprocessing of pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pixels {
    /// torchvision: RGB, 0..1, mean subtracted, divided by the standard deviation.
    Torchvision,
    /// The paper's authors and Keras: BGR, 0..255, mean subtracted.
    CaffeBgr,
    /// RGB, otherwise as [`Pixels::CaffeBgr`].
    CaffeRgb,
}

impl Pixels {
    /// The convention of a library.
    pub(crate) fn of(library: Library) -> Pixels {
        match library {
            Library::Caffe | Library::Keras => Pixels::CaffeBgr,
            Library::TensorFlow => Pixels::CaffeRgb,
            Library::Native | Library::Torchvision | Library::Timm | Library::Onnx => Pixels::Torchvision,
        }
    }

    /// The usual rule for sizes and offsets of crops: the metadata's `geometry`.
    pub(crate) fn geometry(self) -> &'static str {
        match self {
            Pixels::Torchvision => "torchvision",
            Pixels::CaffeBgr | Pixels::CaffeRgb => "caffe",
        }
    }

    pub(crate) fn is_bgr(self) -> bool {
        self == Pixels::CaffeBgr
    }

    /// RGB mean (0..255), pixel scale, RGB divisors and training scales: the metadata's `mean_rgb`,
    /// `pixel_scale`, `std_rgb` and `train_scale`.
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
            _ => Err("expected torchvision, caffe-bgr or caffe-rgb".into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conventions_have_the_published_means_and_deviations() {
        // torchvision's mean and standard deviation are for pixels of 0..1: 0.485 * 255 = 123.675.
        let (mean, factor, std, sides) = Pixels::Torchvision.convention();
        for (value, expected) in mean.iter().zip([123.675, 116.28, 103.53]) {
            assert!((value - expected).abs() < 1e-5, "{mean:?}");
        }
        assert_eq!(factor, 0.003_921_569);
        assert_eq!(std, [0.229, 0.224, 0.225]);
        assert_eq!(sides, [256]);
        // The authors' mean of the ILSVRC training set, also in Keras: B 103.939, G 116.779, R 123.68.
        let authors = ([123.68, 116.779, 103.939], 1.0, [1.0, 1.0, 1.0], vec![256, 512]);
        assert_eq!(Pixels::CaffeBgr.convention(), authors);
        assert_eq!(Pixels::CaffeRgb.convention(), authors);
    }

    #[test]
    fn convention_names_and_channel_orders() {
        for (name, pixels, is_bgr) in [
            ("torchvision", Pixels::Torchvision, false),
            ("caffe-bgr", Pixels::CaffeBgr, true),
            ("caffe-rgb", Pixels::CaffeRgb, false),
        ] {
            assert_eq!(name.parse(), Ok(pixels));
            assert_eq!(pixels.is_bgr(), is_bgr, "{name}");
        }
        let unknown = "caffe".parse::<Pixels>();
        assert_eq!(unknown, Err("expected torchvision, caffe-bgr or caffe-rgb".to_owned()));
    }

    #[test]
    fn default_convention_of_each_library() {
        for (library, pixels) in [
            (Library::Native, Pixels::Torchvision),
            (Library::Torchvision, Pixels::Torchvision),
            (Library::Timm, Pixels::Torchvision),
            (Library::Onnx, Pixels::Torchvision),
            (Library::Caffe, Pixels::CaffeBgr),
            (Library::Keras, Pixels::CaffeBgr),
            (Library::TensorFlow, Pixels::CaffeRgb),
        ] {
            assert_eq!(Pixels::of(library), pixels, "{library:?}");
        }
    }
}

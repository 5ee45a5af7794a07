//! The ILSVRC-2012 training files that are not RGB or grey JPEGs: one PNG and 22 CMYK JPEGs. They identify
//! the usual archive.

use crate::{SplitManifest, imagenet};

/// A PNG with the extension `.JPEG`.
const PNG: &str = "n02105855_2933";

const CMYK: [&str; 22] = [
    "n01739381_1309",
    "n02077923_14822",
    "n02447366_23489",
    "n02492035_15739",
    "n02747177_10752",
    "n03018349_4028",
    "n03062245_4620",
    "n03347037_9675",
    "n03467068_12171",
    "n03529860_11437",
    "n03544143_17228",
    "n03633091_5218",
    "n03710637_5125",
    "n03961711_5286",
    "n04033995_2932",
    "n04258138_17003",
    "n04264628_27969",
    "n04336792_7448",
    "n04371774_5854",
    "n04596742_4225",
    "n07583066_647",
    "n13037406_4650",
];

/// One line for each of these files that `split` does not record as PNG or CMYK. `None` unless every class of
/// `split` has as many images as in the ILSVRC-2012 training set.
pub fn unrecorded_anomalies(split: &SplitManifest) -> Option<Vec<String>> {
    if !imagenet::train_images().eq(split.of_class.iter().copied()) {
        return None;
    }
    let known = [(PNG, "PNG")].into_iter().chain(CMYK.map(|name| (name, "CMYK")));
    let differs = known.filter(|(name, what)| {
        let file = format!("{name}.JPEG");
        !split.anomalies.iter().any(|odd| odd.path.ends_with(&file) && odd.what.contains(what))
    });
    Some(
        differs
            .map(|(name, what)| format!("{name}.JPEG should be {what}, but is not recorded as such"))
            .collect(),
    )
}

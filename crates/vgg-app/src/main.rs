//! The command line of vgg.
fn main() {}

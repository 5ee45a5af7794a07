//! Philox4x32-10, the counter-based generator of Salmon et al. 2011, "Parallel random numbers: as easy as 1,
//! 2, 3".

const MULTIPLIERS: [u64; 2] = [0xD251_1F53, 0xCD9E_8D57];
const WEYL: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];

/// Four random words: the key of Philox is `seed`, the counter consists of `block`, `step` and `layer`.
///
/// The counter has room for 2^40 blocks, 2^64 steps and 2^24 layers.
pub(super) fn block(seed: u64, block: u64, step: u64, layer: u32) -> [u32; 4] {
    let counter = [block as u32, (block >> 32) as u32 & 0xFF | layer << 8, step as u32, (step >> 32) as u32];
    philox4x32(counter, [seed as u32, (seed >> 32) as u32])
}

fn philox4x32(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    for _ in 0..10 {
        let a = MULTIPLIERS[0] * u64::from(counter[0]);
        let b = MULTIPLIERS[1] * u64::from(counter[2]);
        counter = [
            (b >> 32) as u32 ^ counter[1] ^ key[0],
            b as u32,
            (a >> 32) as u32 ^ counter[3] ^ key[1],
            a as u32,
        ];
        key = [key[0].wrapping_add(WEYL[0]), key[1].wrapping_add(WEYL[1])];
    }
    counter
}

#[cfg(test)]
mod tests {
    use super::philox4x32;

    #[test]
    fn known_answers_of_the_authors_library() {
        assert_eq!(philox4x32([0; 4], [0; 2]), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        assert_eq!(philox4x32([!0; 4], [!0; 2]), [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]);
        let counter = [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344];
        let expected = [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1];
        assert_eq!(philox4x32(counter, [0xa409_3822, 0x299f_31d0]), expected);
    }
}

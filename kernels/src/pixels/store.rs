//! Blocks of pixels on their way to memory.

/// Pixels converted at a time.
pub(super) const BLOCK: usize = 64;

/// Writes the first pixels of a block, as many as `rgb` holds: red in the low byte of each word,
/// then green, then blue, then nothing.
#[inline(always)]
pub(super) fn put_words(words: &[u32; BLOCK], rgb: &mut [u8]) {
    let Some(rgb) = rgb.first_chunk_mut::<{ 3 * BLOCK }>() else {
        for (pixel, word) in rgb.as_chunks_mut::<3>().0.iter_mut().zip(words) {
            let [r, g, b, _] = word.to_le_bytes();
            *pixel = [r, g, b];
        }
        return;
    };
    // Two pixels are six bytes. Eight are stored; the next pair writes over the last two.
    let mut pairs = [0u64; BLOCK / 2];
    for (pair, words) in pairs.iter_mut().zip(words.as_chunks::<2>().0) {
        *pair = u64::from(words[0]) | u64::from(words[1]) << 24;
    }
    for (i, pair) in pairs[..BLOCK / 2 - 1].iter().enumerate() {
        rgb[6 * i..6 * i + 8].copy_from_slice(&pair.to_le_bytes());
    }
    rgb[3 * BLOCK - 6..].copy_from_slice(&pairs[BLOCK / 2 - 1].to_le_bytes()[..6]);
}

/// Red, green and blue as words for [`put_words`].
#[inline(always)]
pub(super) fn join(red: &[u8; BLOCK], green: &[u8; BLOCK], blue: &[u8; BLOCK]) -> [u32; BLOCK] {
    let mut words = [0; BLOCK];
    for (i, word) in words.iter_mut().enumerate() {
        *word = u32::from(red[i]) | u32::from(green[i]) << 8 | u32::from(blue[i]) << 16;
    }
    words
}

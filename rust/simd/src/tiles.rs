//! Compile-time loops and the sizes of register tiles.

/// Repeats a block for the first numbers of a list, each as a constant, so that arrays indexed by it stay in
/// registers.
macro_rules! unrolled {
    ($i:ident in [$($n:literal)*] $body:block) => { $( { const $i: usize = $n; $body } )* };
}
pub(crate) use unrolled;

/// Which of `lines` accumulators (or gradient lines), `share` taps apart, meets tap `tap` of `taps` at source line
/// `line`: (accumulator, tap), both in range.
pub const fn meet(line: usize, tap: usize, taps: usize, share: usize, lines: usize) -> Option<(usize, usize)> {
    let share = if share == 0 { 1 } else { share };
    if tap < taps && tap <= line && (line - tap).is_multiple_of(share) && (line - tap) / share < lines {
        Some(((line - tap) / share, tap))
    } else {
        None
    }
}

/// Taps of the shared direction whose weights (or sums) sit in registers at once, by register count.
pub const fn most_taps(registers: usize) -> usize {
    if registers >= 32 { 8 } else { 4 }
}

/// Cuts `taps` into the fewest chunks of at most `most`, as equal as possible: (first tap, count).
pub fn chunks(taps: usize, most: usize) -> impl Iterator<Item = (usize, usize)> {
    let count = taps.div_ceil(most).max(1);
    (0..count).map(move |i| (i * taps / count, (i + 1) * taps / count - i * taps / count))
}

/// The first `count` bits.
#[inline(always)]
pub fn ones(count: usize) -> u32 {
    if count < 32 { (1 << count) - 1 } else { u32::MAX }
}

#[cfg(test)]
mod tests {
    #[test]
    fn chunks_cover_all_taps_evenly() {
        for most in [3, 4, 8] {
            for taps in 1..200 {
                let made: Vec<_> = super::chunks(taps, most).collect();
                assert_eq!(made.iter().map(|c| c.1).sum::<usize>(), taps);
                assert!(made.iter().all(|c| (1..=most).contains(&c.1)));
                assert!(made.windows(2).all(|w| w[0].0 + w[0].1 == w[1].0));
            }
        }
    }
}

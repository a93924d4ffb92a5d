//! Convolutions of 1 to 3 axes as products of long polynomials.
//!
//! Laid out with rows far enough apart that nothing runs into a neighbouring row that is wanted, a convolution of planes
//! or volumes is one of sequences: position `(a, b, c)` becomes the number `a f0 + b f1 + c`. `y[t] = sum_j k[j] x[t + s
//! - j]` says that output `t` is coefficient `t + s` of the product of `x` and `k`.

use crate::kernel::Why;
use crate::operation::Settings;

/// A tensor's positions as coefficients, one channel of one sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signal {
    /// Positions per axis, repeated periods included.
    pub extent: [usize; 3],
    /// Positions per axis in memory, after which they repeat.
    pub period: [usize; 3],
    /// The position in memory of the first.
    pub start: [usize; 3],
    /// The coefficient of the first.
    pub origin: usize,
}

/// The three tensors of a convolution as polynomials.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Polynomials {
    /// The input.
    pub input: Signal,
    /// The kernel.
    pub kernel: Signal,
    /// The output: coefficients of the product.
    pub output: Signal,
    /// Whether the kernel is stored in reverse.
    pub flip: bool,
    /// Whether the input repeats.
    pub periodic: bool,
    /// Coefficients between neighbours along each axis; sizes beyond all memory are cut to the largest number.
    pub step: [usize; 3],
}

/// Sizes, right-aligned to three axes.
fn three(sizes: &[usize], missing: usize) -> Result<[usize; 3], Why> {
    let mut padded = [missing; 3];
    match sizes.len() {
        1..=3 => padded[3 - sizes.len()..].copy_from_slice(sizes),
        other => return Err(format!("expected 1 to 3 spatial axes, got {other}")),
    }
    Ok(padded)
}

impl Polynomials {
    /// From the settings `shift`, `flip` and `periodic` and the sizes of input, kernel and output.
    pub fn new(settings: &Settings<'_>, sizes: [&[usize]; 3]) -> Result<Polynomials, Why> {
        let [input, kernel, output] = [three(sizes[0], 1)?, three(sizes[1], 1)?, three(sizes[2], 1)?];
        let shift: Result<Vec<usize>, _> = settings.integers("shift")?.into_iter().map(usize::try_from).collect();
        let shift = shift.map_err(|_| "shift: expected numbers of at least 0")?;
        if sizes.iter().any(|axes| axes.len() != shift.len()) || sizes.concat().contains(&0) {
            return Err(format!("expected positive sizes of {} axes each, got {sizes:?}", shift.len()));
        }
        let periodic = settings.integer("periodic")? != 0;
        let (mut extent, mut start, mut first) = (input, [0; 3], three(&shift, 0)?);
        for a in 0..3 {
            if periodic {
                if output[a] != input[a] {
                    return Err(format!("output: expected the input's sizes {input:?}, got {output:?}"));
                }
                extent[a] = output[a] + kernel[a] - 1;
                start[a] = (first[a] as i64 + 1 - kernel[a] as i64).rem_euclid(input[a] as i64) as usize;
                first[a] = kernel[a] - 1;
            } else if first[a] + output[a] >= input[a] + kernel[a] {
                return Err(format!(
                    "output: {output:?} from {first:?} on leaves the product of {input:?} and {kernel:?}"
                ));
            }
        }
        // Far enough that what belongs to a neighbouring row does not reach a coefficient that is wanted.
        let pitch = |a: usize| (extent[a] + kernel[a] - 1 - first[a]).max(first[a] + output[a]).max(kernel[a]);
        let step = [pitch(1).saturating_mul(pitch(2)), pitch(2), 1];
        let origin =
            first.iter().zip(step).fold(0, |sum: usize, (at, step)| sum.saturating_add(at.saturating_mul(step)));
        let plain = |extent, origin| Signal { extent, period: extent, start: [0; 3], origin };
        Ok(Polynomials {
            input: Signal { extent, period: input, start, origin: 0 },
            kernel: plain(kernel, 0),
            output: plain(output, origin),
            flip: settings.integer("flip")? != 0,
            periodic,
            step,
        })
    }

    /// One more than the last coefficient of a signal.
    pub fn end(&self, signal: &Signal) -> usize {
        let reach = |(size, step): (&usize, usize)| (size - 1).saturating_mul(step);
        signal.extent.iter().zip(self.step).map(reach).fold(signal.origin.saturating_add(1), usize::saturating_add)
    }

    /// The coefficients that are wanted: the first, and one more than the last.
    pub fn wanted(&self) -> (usize, usize) {
        (self.output.origin, self.end(&self.output))
    }

    /// Coefficients of a transform that yields everything at once.
    pub fn reach(&self) -> usize {
        let (kernel, (first, end)) = (self.end(&self.kernel), self.wanted());
        (self.end(&self.input).saturating_add(kernel - 1) - first).max(end).max(kernel)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn product(words: &str, sizes: [&[usize]; 3]) -> Result<Polynomials, Why> {
        Polynomials::new(&Settings(words), sizes)
    }

    /// Multiplies two polynomials and looks up the outputs, against the sum over taps.
    fn holds(words: &str, sizes: [&[usize]; 3]) {
        let p = product(words, sizes).unwrap();
        let place = |signal: &Signal, v: [usize; 3]| signal.origin + (0..3).map(|a| v[a] * p.step[a]).sum::<usize>();
        let every = |extent: [usize; 3]| {
            (0..extent[0]).flat_map(move |a| (0..extent[1]).flat_map(move |b| (0..extent[2]).map(move |c| [a, b, c])))
        };
        let number = |v: [usize; 3], seed: usize| (v[0] * 31 + v[1] * 17 + v[2] * 7 + seed) % 11;
        let from = |v: [usize; 3]| [0, 1, 2].map(|a| (v[a] + p.input.start[a]) % p.input.period[a]);
        let mut made = vec![0; 2 * p.reach() + 1];
        for v in every(p.input.extent) {
            for k in every(p.kernel.extent) {
                made[place(&p.input, v) + place(&p.kernel, k)] += number(from(v), 0) * number(k, 1);
            }
        }
        let three = |sizes: &[usize], missing| three(sizes, missing).unwrap();
        let shift = Settings(words).integers("shift").unwrap();
        let shift = three(&shift.iter().map(|&s| s as usize).collect::<Vec<_>>(), 0);
        let input = three(sizes[0], 1);
        for t in every(p.output.extent) {
            let mut sum = 0;
            for k in every(p.kernel.extent) {
                let at = [0, 1, 2].map(|a| (t[a] + shift[a]) as i64 - k[a] as i64);
                let at = if p.periodic { [0, 1, 2].map(|a| at[a].rem_euclid(input[a] as i64)) } else { at };
                if (0..3).all(|a| (0..input[a] as i64).contains(&at[a])) {
                    sum += number(at.map(|i| i as usize), 0) * number(k, 1);
                }
            }
            assert_eq!(made[place(&p.output, t)], sum, "{words} {sizes:?} {t:?}");
            assert!(place(&p.output, t) < p.wanted().1);
        }
    }

    #[test]
    fn outputs_are_coefficients_of_the_product() {
        holds("shift=0 flip=0 periodic=0", [&[9], &[4], &[9]]);
        holds("shift=3 flip=1 periodic=1", [&[7], &[10], &[7]]);
        holds("shift=1x2 flip=0 periodic=0", [&[4, 5], &[3, 4], &[4, 5]]);
        holds("shift=2x0 flip=0 periodic=1", [&[4, 5], &[3, 6], &[4, 5]]);
        holds("shift=1x1x0 flip=0 periodic=0", [&[3, 2, 4], &[2, 2, 3], &[3, 2, 6]]);
    }

    #[test]
    fn what_does_not_fit_is_told() {
        for (words, sizes, word) in [
            ("shift=-1 flip=0 periodic=0", [&[5][..], &[2], &[5]], "shift"),
            ("shift=0x0 flip=0 periodic=0", [&[5], &[2], &[5]], "2 axes"),
            ("shift=0 flip=0 periodic=0", [&[5], &[0], &[5]], "positive"),
            ("shift=3 flip=0 periodic=0", [&[5], &[2], &[5]], "leaves the product"),
            ("shift=0 flip=0 periodic=1", [&[5], &[2], &[6]], "the input's sizes"),
        ] {
            let why = product(words, sizes).unwrap_err();
            assert!(why.contains(word), "{why}");
        }
    }
}

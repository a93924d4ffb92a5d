//! Weight and bias gradients: the blocks of all branches in the order of their channels.

use super::lanes;
use crate::weigh::Weigh;
use std::ops::Range;
use striate_core::branches::Branches;
use striate_core::pool::{Part, for_each_part};
use striate_core::view::{carve, carved_bytes};
use striate_core::{Accumulator, Arguments, Pool, Scalar, with_scalar};
use striate_simd::sums::of_row;
use striate_simd::{Convert, Every};

/// Channels of a bias that are summed in one piece.
const CHUNK: usize = 16;

/// Some channels of a branch, as sums that are added up at the end.
struct Block {
    branch: usize,
    channels: Range<usize>,
    /// The number of the first piece, or none where the block is one of a bias.
    first: Option<usize>,
    /// The pieces to be added, and the sums in each.
    pieces: (usize, usize),
    /// Where its pieces lie among all sums.
    start: usize,
}

/// The compiled branches.
pub struct Taps<S: Scalar, I: Convert<S>> {
    programs: Vec<Weigh<S, I>>,
    /// First number of every branch in a sample.
    starts: Vec<usize>,
    blocks: Vec<Block>,
    /// Pieces as (block, number in it), and where they lie.
    pieces: Vec<(usize, usize)>,
    bounds: Vec<usize>,
    scratch: usize,
}

impl<S: Scalar, I: Every + Convert<S>> Taps<S, I> {
    pub fn new(of: &Branches, isa: I) -> Self {
        let sample = of.channels * of.plane;
        let compile = |branch: &striate_core::branches::Branch| {
            Weigh::placed(&branch.problem, lanes::<I>(of, &branch.problem), isa, sample)
        };
        let programs: Vec<Weigh<S, I>> = of.branches.iter().map(compile).collect();
        let mut blocks = Vec::new();
        for (branch, program) in programs.iter().enumerate() {
            let pieces = program.pieces();
            let taps = program.blocks().enumerate().map(|(index, channels)| (channels, Some(index * pieces.0), pieces));
            let count = of.branches[branch].problem.geometry.groups() as usize;
            let biases = (0..if of.biases { count } else { 0 }).step_by(CHUNK);
            let biases = biases.map(|c| (c..(c + CHUNK).min(count), None, (1, CHUNK)));
            blocks.extend(taps.chain(biases).map(|(channels, first, pieces)| Block {
                branch,
                channels,
                first,
                pieces,
                start: 0,
            }));
        }
        blocks.sort_by_key(|block| (of.branches[block.branch].first + block.channels.start, block.branch));
        let (mut pieces, mut bounds) = (Vec::new(), vec![0]);
        for (index, block) in blocks.iter_mut().enumerate() {
            block.start = *bounds.last().expect("starts with one");
            for piece in 0..block.pieces.0 {
                pieces.push((index, piece));
                bounds.push(block.start + (piece + 1) * block.pieces.1);
            }
        }
        let starts = of.branches.iter().map(|branch| branch.first * of.plane).collect();
        let scratch = programs.iter().map(Weigh::piece_scratch).max().unwrap_or(0);
        Taps { programs, starts, blocks, pieces, bounds, scratch }
    }

    fn sums(&self) -> usize {
        *self.bounds.last().expect("starts with one")
    }

    pub fn workspace(&self, width: usize) -> usize {
        carved_bytes::<S::Acc>(1, self.sums()) + carved_bytes::<S::Acc>(width, self.scratch)
    }

    pub fn run(&self, isa: I, of: &Branches, arguments: Arguments<'_>, pool: &dyn Pool) {
        let Arguments { operands, results, workspace } = arguments;
        let maps: Vec<&[S]> = operands.into_iter().flatten().map(|map| map.typed::<S>().data).collect();
        let (sums, rest) = carve::<S::Acc>(workspace, 1, self.sums());
        let (scratch, _) = carve::<S::Acc>(rest, pool.width(), self.scratch);
        let x = maps[maps.len() - 1];
        for_each_part(pool, (sums, &self.bounds), scratch, &|part: Part<'_, S::Acc, S::Acc>| {
            let (index, piece) = self.pieces[part.index];
            let block = &self.blocks[index];
            let start = self.starts[block.branch];
            let grad = &maps[if maps.len() > 2 { block.branch } else { 0 }][start..];
            match block.first {
                Some(first) => {
                    let part = Part { index: first + piece, out: part.out, scratch: part.scratch };
                    self.programs[block.branch].piece(part, grad, &x[start..]);
                }
                None => biases(isa, of, &block.channels, grad, part.out),
            }
        });
        let mut outs: Vec<_> = results.into_iter().collect();
        with_scalar!(outs[0].dtype(), R => {
            let mut outs: Vec<&mut [R]> = outs.drain(..).map(|result| result.typed::<R>().data).collect();
            for block in &self.blocks {
                let out = match block.first {
                    Some(_) => &mut *outs[block.branch],
                    None => &mut *outs[self.programs.len() + block.branch],
                };
                let each = out.len() / of.branches[block.branch].problem.geometry.groups() as usize;
                let out = &mut out[block.channels.start * each..block.channels.end * each];
                block.total(&sums[block.start..], out);
            }
        });
    }
}

impl Block {
    /// Adds the pieces up, in order.
    fn total<A: Accumulator, R: Scalar>(&self, sums: &[A], out: &mut [R]) {
        for (i, slot) in out.iter_mut().enumerate() {
            let mut sum = sums[i];
            for piece in 1..self.pieces.0 {
                sum += sums[piece * self.pieces.1 + i];
            }
            *slot = R::narrow(<R as Scalar>::Acc::from_f64(sum.to_f64()));
        }
    }
}

/// The sums of some channels over samples and positions.
fn biases<S: Scalar, I: Convert<S>>(isa: I, of: &Branches, channels: &Range<usize>, grad: &[S], out: &mut [S::Acc]) {
    for (to, channel) in out.iter_mut().zip(channels.clone()) {
        *to = S::Acc::default();
        for n in 0..of.batch {
            *to += of_row(isa, &grad[(n * of.channels + channel) * of.plane..][..of.plane]);
        }
    }
}

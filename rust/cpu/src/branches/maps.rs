//! Forward pass and input gradient.

use super::{adds, lanes};
use crate::frame::Lanes;
use crate::produce::Produce;
use crate::produce::placed::Packed;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};
use striate_core::branches::{Branches, Form};
use striate_core::pool::{Part, claim};
use striate_core::view::{carve, carved_bytes, padded};
use striate_core::{Arguments, Pass, Pool, Scalar};
use striate_simd::sums::of_columns;
use striate_simd::{Convert, Every};

/// Channels taken at a time, at most.
const CHUNK: usize = 16;
/// Tasks that keep a few threads evenly busy.
const TASKS: usize = 64;

/// Some neighbouring channels of a sample of a result.
struct Piece {
    result: usize,
    range: Range<usize>,
    /// The branch and the number of its piece that is written, then those that are added. None stands for a copy.
    from: Vec<(usize, usize)>,
}

/// The compiled branches, and the pieces of every task.
pub struct Maps<S: Scalar, I: Convert<S>> {
    programs: Vec<Produce<S, I>>,
    /// First number of every branch in a sample.
    starts: Vec<usize>,
    tasks: Vec<Vec<Piece>>,
    scratch: usize,
    /// Numbers of a result to be added.
    added: usize,
}

impl<S: Scalar, I: Every + Convert<S>> Maps<S, I> {
    pub fn new(of: &Branches, isa: I) -> Self {
        let chosen: Vec<Lanes> = of.branches.iter().map(|branch| lanes::<I>(of, &branch.problem)).collect();
        let narrow = (of.batch * of.channels / TASKS).clamp(1, CHUNK);
        let chunk = if chosen.contains(&Lanes::Channels) { CHUNK } else { narrow };
        let sample = of.channels * of.plane;
        let programs: Vec<Produce<S, I>> = of
            .branches
            .iter()
            .zip(chosen)
            .map(|(branch, lanes)| {
                Produce::placed(&branch.problem, lanes, isa, (sample, chunk), of.grain.unwrap_or(usize::MAX))
            })
            .collect();
        let starts = of.branches.iter().map(|branch| branch.first * of.plane).collect();
        let scratch = programs.iter().map(Produce::piece_scratch).max().unwrap_or(0);
        let mut made = Maps { programs, starts, tasks: Vec::new(), scratch, added: 0 };
        made.tasks = if of.form == Form::Split { made.apart(of, chunk) } else { made.together(of) };
        let pieces = made.tasks.iter().flatten().filter(|piece| piece.from.len() > 1);
        made.added = pieces.map(|piece| piece.range.len()).max().unwrap_or(0);
        made
    }

    /// Tasks whose branches all see the same channels.
    fn together(&self, of: &Branches) -> Vec<Vec<Piece>> {
        let branches = 0..self.programs.len();
        let task = |(index, range): (usize, Range<usize>)| {
            if adds(of) {
                return vec![Piece { result: 0, range, from: branches.clone().map(|b| (b, index)).collect() }];
            }
            branches.clone().map(|b| Piece { result: b, range: range.clone(), from: vec![(b, index)] }).collect()
        };
        self.programs[0].pieces().enumerate().map(task).collect()
    }

    /// Tasks of one branch each, and copies.
    fn apart(&self, of: &Branches, chunk: usize) -> Vec<Vec<Piece>> {
        let (sample, same) = (of.channels * of.plane, of.branches[0].first);
        let mut pieces: Vec<Piece> = (0..of.batch)
            .flat_map(|n| (0..same).step_by(chunk).map(move |c| (n, c)))
            .map(|(n, c)| (n * sample + c * of.plane, (same - c).min(chunk) * of.plane))
            .map(|(start, len)| Piece { result: 0, range: start..start + len, from: Vec::new() })
            .collect();
        for (b, (program, start)) in self.programs.iter().zip(&self.starts).enumerate() {
            pieces.extend(program.pieces().enumerate().map(|(index, range)| {
                let range = range.start + start..range.end + start;
                Piece { result: 0, range, from: vec![(b, index)] }
            }));
        }
        pieces.sort_by_key(|piece| piece.range.start);
        pieces.into_iter().map(|piece| vec![piece]).collect()
    }

    pub fn workspace(&self, width: usize) -> usize {
        let prepared: usize = self.programs.iter().map(|program| padded::<S::Acc>(program.prepared())).sum();
        carved_bytes::<S::Acc>(1, prepared)
            + carved_bytes::<S::Acc>(width, self.scratch)
            + carved_bytes::<S>(width, self.added)
    }

    pub fn run(&self, isa: I, of: &Branches, arguments: Arguments<'_>, pool: &dyn Pool) {
        let Arguments { operands, results, workspace } = arguments;
        let ends = if of.pass == Pass::Fwd { 1 } else { of.ends(self.programs.len()) };
        let sources: Vec<&[S]> = operands[..ends].iter().flatten().map(|source| source.typed::<S>().data).collect();
        let lens = self.programs.iter().map(|program| padded::<S::Acc>(program.prepared()));
        let (mut space, rest) = carve::<S::Acc>(workspace, 1, lens.sum());
        let (scratch, rest) = carve::<S::Acc>(rest, pool.width(), self.scratch);
        let (added, _) = carve::<S>(rest, pool.width(), self.added);
        let mut prepared = Vec::new();
        for (b, program) in self.programs.iter().enumerate() {
            let mine = space.split_off_mut(..padded::<S::Acc>(program.prepared())).expect("sized above");
            let weight = operands[ends + b].expect("a supported request has weights");
            let bias = operands.get(ends + self.programs.len() + b).copied().flatten();
            prepared.push(program.prepare((weight, bias), mine, pool));
        }
        let live: Vec<_> = self.programs.iter().zip(&prepared).map(|(p, made)| of.grain.and(p.live(*made))).collect();
        for (made, live) in prepared.iter_mut().zip(&live) {
            made.live = live.as_deref();
        }
        let outs = shared(results.into_iter().map(|result| result.typed::<S>().data).collect(), &self.tasks);
        let slots: Vec<Mutex<_>> =
            pieces_of(scratch, pool.width()).zip(pieces_of(added, pool.width())).map(Mutex::new).collect();
        claim(pool, self.tasks.len(), &|slot, task| {
            // Neither lock is ever waited for: slots and tasks are handed out once.
            let mut memory = slots[slot].lock().unwrap_or_else(PoisonError::into_inner);
            let (scratch, added) = &mut *memory;
            let mut outs = outs[task].lock().unwrap_or_else(PoisonError::into_inner);
            for (piece, out) in self.tasks[task].iter().zip(&mut *outs) {
                self.piece(isa, piece, (&sources, &prepared), (out, scratch, added));
            }
        });
    }

    fn piece(
        &self,
        isa: I,
        piece: &Piece,
        (sources, prepared): (&[&[S]], &[Packed<'_, S::Acc>]),
        (out, scratch, added): (&mut [S], &mut [S::Acc], &mut [S]),
    ) {
        if piece.from.is_empty() {
            out.copy_from_slice(&sources[0][piece.range.clone()]);
        }
        for (turn, &(b, index)) in piece.from.iter().enumerate() {
            let source = &sources[if sources.len() > 1 { b } else { 0 }][self.starts[b]..];
            let target = if turn == 0 { &mut *out } else { &mut added[..piece.range.len()] };
            let part = Part { index, out: target, scratch: &mut *scratch };
            self.programs[b].piece(part, source, prepared[b]);
            if turn > 0 {
                let sums = S::as_accumulators_mut(out).expect("results are added in their own type");
                of_columns(isa, &added[..piece.range.len()], sums);
            }
        }
    }
}

/// So many equal pieces; empty ones where there is nothing to cut.
fn pieces_of<T>(memory: &mut [T], count: usize) -> impl Iterator<Item = &mut [T]> {
    let each = memory.len() / count;
    let mut rest = memory;
    (0..count).map(move |_| rest.split_off_mut(..each).expect("a share of the memory"))
}

/// The pieces of every task, which cover the results in order.
fn shared<'a, S>(mut results: Vec<&'a mut [S]>, tasks: &[Vec<Piece>]) -> Vec<Mutex<Vec<&'a mut [S]>>> {
    let mut share =
        |piece: &Piece| results[piece.result].split_off_mut(..piece.range.len()).expect("pieces lie in the results");
    tasks.iter().map(|task| Mutex::new(task.iter().map(&mut share).collect())).collect()
}

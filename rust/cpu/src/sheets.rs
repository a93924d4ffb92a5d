//! Planes cut into sheets, for pooling whose windows are short in a plane: threads take bands of rows, and wide bands
//! are cut into pieces of columns, so that the rows at hand stay in the smallest cache.

use crate::window::{Along, SHORT, SLACK};
use std::marker::PhantomData;
use std::ops::Range;
use striate_core::pool::{Part, for_each_part};
use striate_core::pooling::{Mode, Pooling};
use striate_core::view::carve;
use striate_core::{Accumulator, Pass, Pool, Scalar};
use striate_simd::places::{Index, Positions, Starts};
use striate_simd::rows::Block;
use striate_simd::sheets::{self, Ending, Line, MOST, Numbers, Row, Run, Sheet};
use striate_simd::windows::Kind;
use striate_simd::{Convert, Maths, Simd};

/// Accumulators of the rows at hand.
const NEAR: usize = 6 << 10;
/// Numbers of the result in a part.
const PART: usize = 1 << 16;
/// Numbers of the result that make a part worth handing out.
const GRAIN: usize = 1 << 13;
/// Fewer parts than this are cut further, so that there is work for threads.
const PARTS: usize = 16;

/// Some rows of a plane's result.
struct Band {
    first: usize,
    rows: Vec<Row>,
    held: usize,
}

/// Some columns of them, with the factors of divisors along the line or along its result, or where windows begin.
struct Piece<A> {
    first: usize,
    line: Line<A>,
    by: Vec<A>,
    starts: [Vec<A>; 2],
}

/// How a whole request is cut up.
pub struct Sheets<A> {
    pass: Pass,
    /// Numbers in a plane, and in a row, of the source and of the result.
    each: [usize; 2],
    pitch: [usize; 2],
    /// Numbers at a position.
    unit: usize,
    bands: Vec<Band>,
    pieces: Vec<Piece<A>>,
    /// Factors of divisors for rows; none where nothing is divided.
    by: Vec<A>,
    /// Where the windows of rows begin, and their first taps inside, if positions are asked for.
    starts: [Vec<i64>; 2],
    nothing: A,
    /// Planes that a part takes, and where parts begin.
    group: usize,
    bounds: Vec<usize>,
}

impl<A: Accumulator> Sheets<A> {
    /// For a request with dense tensors, if its windows allow it; `last` says whether channels are innermost,
    /// `own` whether numbers are their own accumulators, `places` whether positions are asked for.
    pub fn new(pooling: &Pooling, (last, own, places): (bool, bool, bool)) -> Option<Sheets<A>> {
        const { assert!(MOST >= SHORT) };
        let ([deep, high, wide], pass) = (&pooling.axes, pooling.pass);
        let outs = [1, 2].map(|a| pooling.axes[a].extent(pass) as usize);
        let plain = deep.kernel() == 1 && deep.stride() == 1 && deep.pad() == (0, 0);
        let short = high.kernel().max(wide.kernel()) <= SHORT as i64;
        if !plain || !short || outs.contains(&0) {
            return None;
        }
        let far = |a: usize| (pooling.axes[a].kernel() - 1) * pooling.axes[a].dilation() * pooling.plane()[a];
        // Positions count through all slices of a volume, and f32 no further than this.
        if places && (deep.extent(pass) > 1 || far(1) + far(2) + pooling.plane()[1] >= 1 << 24) {
            return None;
        }
        // Columns that different taps produce are not neighbours.
        Along::<A>::new(wide, pass, 0..outs[1] as i64).single()?;
        let slices = deep.extent(pass) as usize * pooling.batch;
        let (planes, unit) = if last { (slices, pooling.channels) } else { (slices * pooling.channels, 1) };
        let pitch = [wide.source(pass) as usize * unit, outs[1] * unit];
        let each = [high.source(pass) as usize * pitch[0], outs[0] * pitch[1]];
        let [rows, columns] = cuts(pooling, outs, (planes, unit));
        let factors = if pooling.mode == Mode::Avg { pooling.divisors() } else { [const { Vec::new() }; 3] };
        let by = factors[1].iter().map(|&factor| A::from_f64(factor)).collect();
        let starts: Vec<usize> = match outs[0] {
            1 => columns.iter().map(|columns| columns.start as usize * unit).collect(),
            _ => rows.iter().map(|rows| rows.start as usize * pitch[1]).collect(),
        };
        let group = if starts.len() > 1 { 1 } else { (GRAIN / each[1].max(1)).clamp(1, planes.max(1)) };
        let at = |plane: usize| starts.iter().map(move |start| plane * each[1] + start);
        let bounds = (0..planes).step_by(group).flat_map(at).chain([planes * each[1]]).collect();
        let bands = rows.into_iter().map(|rows| band(pooling, rows)).collect();
        let [mut starts, mut along] = [const { [const { Vec::new() }; 2] }; 2];
        if places {
            [starts, along] = [1, 2].map(|a| [false, true].map(|inside| starts_of(pooling, a, inside)));
        }
        let cut = Cut { pooling, unit, own, factors: &factors[2], starts: along.each_ref().map(|of| &of[..]) };
        let pieces = columns.into_iter().map(|columns| cut.piece(columns)).collect();
        let nothing = A::from_f64(if pooling.mode == Mode::Min { f64::INFINITY } else { f64::NEG_INFINITY });
        Some(Sheets { pass, each, pitch, unit, bands, pieces, by, starts, nothing, group, bounds })
    }

    /// Accumulators that a slot needs.
    pub fn scratch(&self) -> usize {
        let held = self.bands.iter().map(|band| band.held).max().unwrap_or(0);
        let labels = !self.starts[0].is_empty();
        self.pieces.iter().map(|piece| piece.line.scratch(held, labels)).max().unwrap_or(0)
    }

    /// Pools everything.
    pub fn run<S, I, K>(&self, way: (I, K), (src, dst): (&[S], &mut [S]), room: (&mut [u8], &dyn Pool))
    where
        S: Scalar<Acc = A>,
        I: Convert<S> + Maths<A>,
        K: Kind<A, I, Cell = <I as Simd<A>>::V>,
    {
        let joined = !self.by.is_empty() && self.pass == Pass::Fwd;
        self.each_sheet(way, (src, dst), room, |band, piece| Numbers {
            divide: joined.then_some((&self.by[band.first.min(self.by.len())..], &piece.by)),
        });
    }

    /// Finds where everything is.
    pub fn places<S, T, I, K>(&self, way: (I, K), (src, dst): (&[S], &mut [T]), room: (&mut [u8], &dyn Pool))
    where
        S: Scalar<Acc = A>,
        T: Index,
        I: Convert<S> + Maths<A>,
        K: Kind<A, I, Cell = (<I as Simd<A>>::V, <I as Simd<A>>::V)>,
    {
        self.each_sheet(way, (src, dst), room, |band, piece| {
            let [windows, inside] =
                [0, 1].map(|n| Starts { rows: &self.starts[n][band.first..], places: &piece.starts[n] });
            Positions { windows, inside, nothing: self.nothing, stored: PhantomData }
        });
    }

    fn each_sheet<'a, S, I, K, E>(
        &'a self,
        (isa, kind): (I, K),
        (src, dst): (&[S], &mut [E::To]),
        (workspace, pool): (&mut [u8], &dyn Pool),
        ending: impl Fn(&'a Band, &'a Piece<A>) -> E + Sync,
    ) where
        S: Scalar<Acc = A>,
        I: Convert<S> + Maths<A>,
        K: Kind<A, I>,
        E: Ending<S, I, K>,
        E::To: Send,
    {
        let (scratch, _) = carve::<A>(workspace, pool.width(), self.scratch());
        // Parts are bands or, in planes of one row, pieces.
        let (bands, pieces) = (self.bands.len(), self.pieces.len());
        let parts = if self.each[1] == self.pitch[1] { pieces } else { bands };
        for_each_part(pool, (dst, &self.bounds), scratch, &|part: Part<'_, E::To, A>| {
            let (first, which) = (part.index / parts * self.group, part.index % parts);
            let (band, chosen) = if self.each[1] == self.pitch[1] { (0, which..which + 1) } else { (which, 0..pieces) };
            let planes = src[first * self.each[0]..].chunks_exact(self.each[0].max(1)).take(self.group);
            for (plane, numbers) in planes.enumerate() {
                let start = self.pieces[chosen.start].first;
                for piece in &self.pieces[chosen.clone()] {
                    let to = plane * self.each[1] + (piece.first - start) * self.unit;
                    let (band, scratch) = (&self.bands[band], &mut *part.scratch);
                    let sheet = self.sheet(band, piece);
                    sheets::pool((isa, kind, ending(band, piece)), &sheet, (numbers, scratch), &mut part.out[to..]);
                }
            }
        });
    }

    fn sheet<'a>(&'a self, band: &'a Band, piece: &'a Piece<A>) -> Sheet<'a, A> {
        let read = !self.by.is_empty() && self.pass != Pass::Fwd;
        let divide = read.then_some((&self.by[..], &piece.by[..]));
        Sheet { line: &piece.line, rows: &band.rows, held: band.held, divide, pitch: self.pitch }
    }
}

/// How rows and columns of a result are cut.
fn cuts(pooling: &Pooling, outs: [usize; 2], (planes, unit): (usize, usize)) -> [Vec<Range<i64>>; 2] {
    let pass = pooling.pass;
    // What neighbouring cuts both need is read twice: they must not be much smaller.
    let halo = |a: usize| Along::<f32>::new(&pooling.axes[a], pass, 0..1).extent.max(1) - 1;
    let shared = if planes < PARTS { PARTS.div_ceil(planes.max(1)) } else { 1 };
    // Even cuts, in whole vectors.
    let cut = |outs: usize, each: usize, align: usize| {
        let each = each.clamp(1, outs).next_multiple_of(align) as i64;
        (0..outs as i64).step_by(each as usize).map(|from| from..(from + each).min(outs as i64)).collect()
    };
    let pitch = outs[1] * unit;
    let least = (4 * halo(1)).max(GRAIN / pitch.max(1));
    let rows = (PART / pitch.max(1)).min(outs[0].div_ceil(shared)).max(least);
    let held = if outs[0] == 1 { 1 } else { halo(1) + 2 };
    let pieces = outs[1].div_ceil((NEAR / (held * unit)).max(4 * halo(2)).max(1));
    let pieces = if outs[0] == 1 { pieces.max(shared.min(pitch / GRAIN)) } else { pieces };
    [cut(outs[0], rows, 1), cut(outs[1], outs[1].div_ceil(pieces.max(1)), if unit == 1 { SLACK } else { 1 })]
}

fn band(pooling: &Pooling, range: Range<i64>) -> Band {
    let axis = &pooling.axes[1];
    let (along, source) = (Along::<f32>::new(axis, pooling.pass, range.clone()), axis.source(pooling.pass));
    let row = |out: usize| {
        let ((taps, at), mut row) = (along.window(out), Row::default());
        let rows = taps.iter().map(|tap| along.base + (tap.0 + at) as i64);
        for (tap, inside) in taps.iter().zip(rows).filter(|(_, at)| (0..source).contains(at)) {
            row.taps[row.count] = inside as usize;
            row.away[row.count] = (tap.0 - taps[0].0) * pooling.plane()[1] as usize;
            row.count += 1;
        }
        row
    };
    let mut rows: Vec<Row> = (0..along.outs).map(row).collect();
    let first = rows.iter().flat_map(|row| &row.taps[..row.count]).min();
    let (mut held, mut ready) = (0, first.copied().unwrap_or(0));
    for (out, row) in rows.iter_mut().enumerate() {
        let taps = &row.taps[..row.count];
        if let (Some(&low), Some(&high)) = (taps.iter().min(), taps.iter().max()) {
            // Going forward, rows before the first tap of a window, even one in the padding, are not needed any more.
            let (all, at) = along.window(out);
            let start = (along.base + (all[0].0 + at) as i64).max(0) as usize;
            let from = if pooling.pass == Pass::Fwd { start.max(ready) } else { ready };
            row.reads = (from, from.max(high + 1));
            ready = row.reads.1;
            held = held.max(ready - low);
        }
    }
    // One row at a time needs no place.
    let held = if axis.kernel() == 1 { 0 } else { held };
    rows.iter_mut().flat_map(|row| &mut row.taps[..row.count]).for_each(|place| *place %= held.max(1));
    Band { first: range.start as usize, rows, held }
}

/// Where in the plane windows begin along an axis: their first taps, inside or not, or the first inside.
fn starts_of(pooling: &Pooling, a: usize, inside: bool) -> Vec<i64> {
    let (axis, step) = (&pooling.axes[a], pooling.plane()[a]);
    let sweep = axis.sweep(Pass::Fwd, 0);
    let start = |o| if inside { axis.walk(Pass::Fwd, o).a0 } else { sweep.src0 + o * sweep.src_step };
    (0..axis.output()).map(|o| start(o) * step).collect()
}

/// What the pieces of a request have in common.
struct Cut<'a> {
    pooling: &'a Pooling,
    unit: usize,
    own: bool,
    factors: &'a [f64],
    starts: [&'a [i64]; 2],
}

impl Cut<'_> {
    fn piece<A: Accumulator>(&self, columns: Range<i64>) -> Piece<A> {
        let Cut { pooling, unit, own, factors, .. } = *self;
        let (first, axis) = (columns.start as usize, &pooling.axes[2]);
        let wide = Along::<A>::new(axis, pooling.pass, columns.clone()).scale(unit, 1, true);
        let (step, len) = (wide.step, wide.step * wide.phase(unit));
        let runs = wide.runs(axis.source(pooling.pass), unit);
        let mut line = Line {
            len: len.next_multiple_of(SLACK),
            taps: wide.single().expect("columns are neighbours").to_vec(),
            cols: wide.outs * unit,
            runs: Vec::new(),
            stands: None,
        };
        let divided = !factors.is_empty() && pooling.pass != Pass::Fwd;
        match runs[..] {
            [(position, to, count)] if own && step == 1 && !divided => {
                line.stands = Some((to..to + count * unit, (position * unit) as isize - to as isize));
            }
            _ => line.runs = runs.iter().map(|&run| self.run(run, step)).collect(),
        }
        let by = match pooling.pass {
            _ if factors.is_empty() => Vec::new(),
            Pass::Fwd => spread(line.pitch(), [(first, 0, wide.outs)], unit, factors),
            _ => spread(line.len, runs.iter().copied(), unit, factors),
        };
        let starts = self.starts.map(|starts| {
            let starts: Vec<f64> = starts.iter().map(|&start| start as f64).collect();
            if starts.is_empty() { Vec::new() } else { spread(line.pitch(), [(first, 0, wide.outs)], unit, &starts) }
        });
        Piece { first, line, by, starts }
    }

    fn run(&self, (position, to, count): (usize, usize, usize), step: usize) -> Run {
        let unit = self.unit;
        let row = Block { rows: 1, cols: count, from_pitch: 0, from_step: step, to_pitch: 0, to_step: 1 };
        let block = match (unit, step) {
            (1, _) => row,
            (_, 1) => Block { cols: count * unit, ..row },
            _ => Block { rows: count, cols: unit, from_pitch: step * unit, from_step: 1, to_pitch: unit, to_step: 1 },
        };
        Run { block, from: position * unit, to }
    }
}

/// Factors of runs of positions at their places, ones elsewhere.
fn spread<A: Accumulator>(
    len: usize,
    runs: impl IntoIterator<Item = (usize, usize, usize)>,
    unit: usize,
    factors: &[f64],
) -> Vec<A> {
    let mut by = vec![A::from_f64(1.0); len];
    for (position, to, count) in runs {
        for (by, &factor) in by[to..].chunks_mut(unit).zip(&factors[position..][..count]) {
            by.fill(A::from_f64(factor));
        }
    }
    by
}

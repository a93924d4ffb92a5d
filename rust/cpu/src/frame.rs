//! Bands and boxes: which part of the produced tensor is worked on at a time, and where the source positions it
//! needs lie in scratch memory.
//!
//! A *band* is a block of produced positions. Its *box* holds every source position that one of them meets, padding
//! included, as accumulators. With [`Lanes::Width`] a vector runs along the last axis, whose positions are sorted by
//! residue of the stride so that neighbouring outputs are neighbours in memory. With [`Lanes::Channels`] every
//! position is a vector of channels.

use striate_core::{Pass, Problem, Role, Sweep};

/// What the lanes of a vector are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lanes {
    /// Neighbouring positions of the last axis.
    Width,
    /// Neighbouring channels.
    Channels,
}

/// One axis as the kernels walk it: its sweeps and the source size.
pub struct Track {
    /// The sweeps, by first produced position.
    pub sweeps: Vec<Sweep>,
    /// Source positions.
    pub source: i64,
    /// Produced positions.
    pub outs: usize,
    /// Distance of positions in one sweep.
    pub out_step: usize,
    /// Smallest first source position of a sweep with taps.
    pub origin: i64,
}

impl Track {
    fn new(problem: &Problem, axis: usize) -> Track {
        let axis = &problem.geometry.axes()[axis];
        // The weight gradient walks the forward pass with the output gradient as the produced side.
        let pass = if problem.pass == Pass::Dw { Pass::Fwd } else { problem.pass };
        let sweeps: Vec<Sweep> = (0..axis.sweep_count(pass)).map(|i| axis.sweep(pass, i)).collect();
        let origin = sweeps.iter().filter(|s| s.taps > 0).map(|s| s.src0).min().unwrap_or(0);
        let (source, outs, out_step) = (axis.source(pass), axis.extent(pass) as usize, sweeps[0].out_step as usize);
        Track { sweeps, source, outs, out_step, origin }
    }

    /// Distance in the source of neighbouring produced positions of a sweep.
    pub fn src_step(&self) -> usize {
        self.sweeps[0].src_step as usize
    }

    /// Positions of a sweep in a band of `size` produced positions.
    pub fn count(&self, sweep: &Sweep, size: usize) -> usize {
        size.saturating_sub(sweep.out0 as usize).div_ceil(self.out_step)
    }

    /// Offset of a sweep's first source position in a box.
    pub fn base(&self, sweep: &Sweep) -> usize {
        if sweep.taps > 0 { (sweep.src0 - self.origin) as usize } else { 0 }
    }

    /// Source positions that a band of `size` produced positions needs.
    fn extent(&self, size: usize) -> usize {
        let far = |s: &Sweep| {
            let count = self.count(s, size);
            if s.taps == 0 || count == 0 {
                return 1;
            }
            self.base(s) + (count - 1) * s.src_step as usize + (s.taps - 1) as usize * s.reach_step as usize + 1
        };
        self.sweeps.iter().map(far).max().unwrap_or(1)
    }

    /// First source position of the box of the band that starts at produced position `start`.
    pub fn box_start(&self, start: usize) -> i64 {
        self.origin + (start / self.out_step) as i64 * self.src_step() as i64
    }
}

/// The three tracks of a problem.
pub fn tracks(problem: &Problem) -> [Track; 3] {
    [0, 1, 2].map(|axis| Track::new(problem, axis))
}

/// Memory layout of a box.
#[derive(Clone, Copy, Debug)]
pub struct Frame {
    /// Source positions along each axis.
    pub extent: [usize; 3],
    /// Distance of slices and of rows.
    pub pitch: [usize; 2],
    /// Residues that the last axis is sorted by.
    pub residues: usize,
    /// Distance of residues, or of positions when lanes are channels.
    pub unit: usize,
    lanes: Lanes,
}

impl Frame {
    /// The box of a band.
    pub fn new(tracks: &[Track; 3], size: [usize; 3], lanes: Lanes, width: usize) -> Frame {
        let extent = [0, 1, 2].map(|a| tracks[a].extent(size[a]));
        if lanes == Lanes::Channels {
            let row = extent[2] * width;
            return Frame { extent, pitch: [extent[1] * row, row], residues: 1, unit: width, lanes };
        }
        let residues = tracks[2].src_step();
        // A vector may start at the last position, and rows a power of two apart would share cache sets.
        let unit = (extent[2].div_ceil(residues) + width - 1).next_multiple_of(width);
        let row = residues * unit;
        let row = if row.is_multiple_of(512) { row + width } else { row };
        Frame { extent, pitch: [extent[1] * row, row], residues, unit, lanes }
    }

    /// A tensor seen as a box without padding; its innermost axis is the one of the lanes.
    pub fn of_tensor(strides: &Strides, lanes: Lanes) -> Frame {
        let [slice, row, unit] = strides.axis;
        Frame { extent: [0; 3], pitch: [slice, row], residues: 1, unit, lanes }
    }

    /// Numbers in the box.
    pub fn len(&self) -> usize {
        self.extent[0] * self.pitch[0]
    }

    /// Offset of a distance along an axis, counted from the box's start.
    pub fn shift(&self, axis: usize, distance: usize) -> usize {
        match axis {
            0 | 1 => distance * self.pitch[axis],
            _ if self.lanes == Lanes::Channels => distance * self.unit,
            _ => distance % self.residues * self.unit + distance / self.residues,
        }
    }
}

/// How the produced positions are cut into bands: equal blocks but for the last along each axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bands {
    /// Produced positions in all.
    pub outs: [usize; 3],
    /// Positions in a band.
    pub size: [usize; 3],
}

/// Numbers a box should have at most, so that those in use stay in the level-2 cache with what is written.
const BOX: usize = 40_000;
const BOX_OF_CHANNELS: usize = 28_000;
/// Boxes of channels filled together: a few neighbouring cache lines are read at every position.
pub const TOGETHER: usize = 4;
/// Multiply-adds below which a band is not cut for the sake of more threads.
const GRAIN: usize = 200_000;
/// Parts that keep a few threads evenly busy.
const PARTS: usize = 16;

impl Bands {
    /// Bands of a problem that has `items` independent planes. The cut never depends on the number of threads.
    pub fn new(tracks: &[Track; 3], lanes: Lanes, width: usize, items: usize) -> Bands {
        let outs = [0, 1, 2].map(|a| tracks[a].outs);
        let taps: usize = tracks.iter().map(|t| t.sweeps.iter().map(|s| s.taps as usize).max().unwrap_or(1)).product();
        let mut bands = Bands { outs, size: outs };
        loop {
            let most = if lanes == Lanes::Channels { BOX_OF_CHANNELS } else { BOX };
            let large = Frame::new(tracks, bands.size, lanes, width).len() > most;
            let work = bands.size.iter().product::<usize>() * taps * if lanes == Lanes::Channels { width } else { 1 };
            let few = items * bands.count() < PARTS && work > 2 * GRAIN;
            if !(large || few) || !bands.cut(tracks, lanes) {
                return bands;
            }
        }
    }

    /// One band, for a problem that needs no boxes.
    pub fn whole(tracks: &[Track; 3]) -> Bands {
        let outs = [0, 1, 2].map(|a| tracks[a].outs);
        Bands { outs, size: outs }
    }

    /// Bands of whole rows of one plane, for a problem that needs no boxes; `planes` are independent, and one position
    /// costs `each` multiply-adds.
    pub fn of_rows(tracks: &[Track; 3], planes: usize, each: usize) -> Bands {
        let outs = [0, 1, 2].map(|a| tracks[a].outs);
        let mut bands = Bands { outs, size: [1, outs[1], outs[2]] };
        while planes * bands.count() < PARTS && bands.size[1] * outs[2] * each > 2 * GRAIN {
            let half = bands.size[1].div_ceil(2).next_multiple_of(tracks[1].out_step);
            if half >= bands.size[1] {
                break;
            }
            bands.size[1] = half;
        }
        bands
    }

    /// Halves the bands along the first axis that is not at its smallest useful size.
    fn cut(&mut self, tracks: &[Track; 3], lanes: Lanes) -> bool {
        for (axis, track) in tracks.iter().enumerate() {
            let taps = track.sweeps.iter().map(|s| s.taps as usize).max().unwrap_or(1);
            // Below these sizes the halo would outweigh the band or tiles would run short.
            let least = match (axis, lanes) {
                (0, _) => 1,
                (1, _) => 8.max(taps / 2),
                (_, Lanes::Width) => 512.max(2 * taps),
                (_, Lanes::Channels) => 32.max(taps / 2),
            };
            let half = self.size[axis].div_ceil(2).next_multiple_of(track.out_step);
            if half < self.size[axis] && half >= least.min(self.outs[axis]) {
                self.size[axis] = half;
                return true;
            }
        }
        false
    }

    fn along(&self, axis: usize) -> usize {
        self.outs[axis].div_ceil(self.size[axis])
    }

    /// Number of bands.
    pub fn count(&self) -> usize {
        (0..3).map(|a| self.along(a)).product()
    }

    /// Start and size of band number `index`.
    pub fn band(&self, index: usize) -> ([usize; 3], [usize; 3]) {
        let (n1, n2) = (self.along(1), self.along(2));
        let at = [index / (n1 * n2), index / n2 % n1, index % n2];
        let start = [0, 1, 2].map(|a| at[a] * self.size[a]);
        (start, [0, 1, 2].map(|a| self.size[a].min(self.outs[a] - start[a])))
    }

    /// Whether a band's positions are neighbours in row-major memory.
    pub fn contiguous(&self) -> bool {
        let whole = |a: usize| self.size[a] == self.outs[a];
        (whole(1) || self.size[0] == 1) && (whole(2) || self.size[0] == 1 && self.size[1] == 1)
    }

    /// All sizes that occur, at most two along each axis.
    pub fn sizes(&self) -> Vec<[usize; 3]> {
        let along = |a: usize| {
            let tail = self.outs[a] - (self.along(a) - 1) * self.size[a];
            if tail == self.size[a] || self.along(a) == 1 { vec![tail] } else { vec![self.size[a], tail] }
        };
        let (s0, s1, s2) = (along(0), along(1), along(2));
        let all = s0.iter().flat_map(|&a| {
            s1.iter().flat_map({
                let s2 = &s2;
                move |&b| s2.iter().map(move |&c| [a, b, c])
            })
        });
        all.collect()
    }
}

/// Strides of the activations that a kernel walks: channel and the three axes, and the sample's size.
#[derive(Clone, Copy, Debug)]
pub struct Strides {
    /// Distance of channels.
    pub channel: usize,
    /// Distance of positions along each axis.
    pub axis: [usize; 3],
    /// Distance of samples.
    pub sample: usize,
    /// Number of channels.
    pub channels: usize,
}

impl Strides {
    /// Of a tensor of activations.
    pub fn of(problem: &Problem, role: Role) -> Strides {
        let [n, _, c, a0, a1, a2] = problem.strides(role);
        let dims = problem.geometry.dims(role);
        Strides { channel: c, axis: [a0, a1, a2], sample: n, channels: dims[1] * dims[2] }
    }

    /// Offset of three positions.
    pub fn at(&self, position: [usize; 3]) -> usize {
        (0..3).map(|a| position[a] * self.axis[a]).sum()
    }
}

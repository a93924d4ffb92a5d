//! The full shape of a convolution: batch, channel groups and three axes.

use crate::axis::{Axis, Pass};

/// A convolution's shape. One- and two-dimensional ones are three-dimensional with leading unit axes. A value that
/// exists is valid; no kernel validates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct Geometry {
    batch: i64,
    groups: i64,
    c_in: i64,
    c_out: i64,
    axes: [Axis; 3],
    rank: u8,
}

/// A tensor's part in the convolution. The six canonical indices are
/// `[batch, group, channel in group, a0, a1, a2]`; a weight has its output channel in place of the batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// `[n, g, c_in, i0, i1, i2]`
    Input,
    /// `[c_out, g, c_in, k0, k1, k2]`
    Weight,
    /// `[n, g, c_out, o0, o1, o2]`
    Output,
}

impl Role {
    /// What `pass` reads first, reads second and produces.
    pub fn of(pass: Pass) -> [Role; 3] {
        match pass {
            Pass::Fwd => [Role::Input, Role::Weight, Role::Output],
            Pass::Dx => [Role::Output, Role::Weight, Role::Input],
            Pass::Dw => [Role::Output, Role::Input, Role::Weight],
        }
    }
}

/// Channel counts of a convolution: how many groups, and input and output channels in each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Channels {
    /// Number of groups.
    pub groups: i64,
    /// Input channels per group.
    pub c_in: i64,
    /// Output channels per group.
    pub c_out: i64,
}

impl Geometry {
    /// A checked geometry of one to three axes.
    pub fn new(batch: i64, channels: Channels, axes: &[Axis]) -> Result<Geometry, String> {
        let Channels { groups, c_in, c_out } = channels;
        for (name, value, least) in [
            ("batch", batch, 0),
            ("groups", groups, 1),
            ("input channels per group", c_in, 0),
            ("output channels per group", c_out, 0),
        ] {
            if value < least {
                return Err(format!("{name}: expected at least {least}, got {value}"));
            }
        }
        if !(1..=3).contains(&axes.len()) {
            return Err(format!("expected 1 to 3 spatial dimensions, got {}", axes.len()));
        }
        let mut full = [Axis::UNIT; 3];
        full[3 - axes.len()..].copy_from_slice(axes);
        let made = Geometry { batch, groups, c_in, c_out, axes: full, rank: axes.len() as u8 };
        for role in [Role::Input, Role::Weight, Role::Output] {
            // Eight bytes an element is the widest storage; a tensor must be addressable in full.
            let bytes = made.extents(role).iter().try_fold(8i64, |all, &size| all.checked_mul(size.max(1)));
            if bytes.is_none_or(|b| b > 1 << 56) {
                return Err(format!("{role:?} tensor of {:?} elements is too large to address", made.extents(role)));
            }
        }
        Ok(made)
    }

    /// Number of samples.
    pub fn batch(&self) -> i64 {
        self.batch
    }
    /// Number of channel groups.
    pub fn groups(&self) -> i64 {
        self.groups
    }
    /// Input channels per group.
    pub fn c_in(&self) -> i64 {
        self.c_in
    }
    /// Output channels per group.
    pub fn c_out(&self) -> i64 {
        self.c_out
    }
    /// Number of real spatial dimensions, 1 to 3.
    pub fn rank(&self) -> usize {
        usize::from(self.rank)
    }
    /// All three axes, leading ones unit.
    pub fn axes(&self) -> &[Axis; 3] {
        &self.axes
    }
    /// The real axes only.
    pub fn real_axes(&self) -> &[Axis] {
        &self.axes[3 - self.rank()..]
    }
    /// Whether each group has one input channel.
    pub fn is_depthwise(&self) -> bool {
        self.c_in == 1
    }

    fn extents(&self, role: Role) -> [i64; 6] {
        let [a, b, c] = self.axes;
        let Geometry { batch, groups, c_in, c_out, .. } = *self;
        match role {
            Role::Input => [batch, groups, c_in, a.input(), b.input(), c.input()],
            Role::Weight => [c_out, groups, c_in, a.kernel(), b.kernel(), c.kernel()],
            Role::Output => [batch, groups, c_out, a.output(), b.output(), c.output()],
        }
    }

    /// The six canonical sizes of a tensor.
    pub fn dims(&self, role: Role) -> [usize; 6] {
        self.extents(role).map(|size| size as usize)
    }

    /// Multiply-adds of one pass, counting only taps that meet a real input position.
    pub fn macs(&self) -> f64 {
        let meet = |axis: &Axis| (0..axis.kernel()).map(|k| axis.walk(Pass::Dw, k).len as f64).sum::<f64>();
        let channels = self.groups as f64 * self.c_in as f64 * self.c_out as f64;
        self.axes.iter().map(meet).product::<f64>() * self.batch as f64 * channels
    }
}

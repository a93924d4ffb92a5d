//! From the arguments of a raw operator to a validated problem. Pure arithmetic on sizes: no memory is touched.

use crate::config::Config;
use crate::handles::{MAX_DIM, Shape};
use striate_core::geometry::Channels;
use striate_core::{Axis, DType, Device, Geometry, Layout, Pass, Problem};

/// What is asked of a tensor argument before its memory is looked at.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Facts {
    /// Sizes and strides.
    pub shape: Shape,
    /// Its storage type; `Err` holds torch's code of one that striate has not.
    pub dtype: Result<DType, i32>,
}

/// The arguments of one of the three operators, named by the pass they ask for.
#[derive(Clone, Copy)]
pub struct Request {
    /// Tensor to produce.
    pub pass: Pass,
    /// Where the tensors lie.
    pub device: Device,
    /// First and second operand.
    pub operands: [Facts; 2],
    /// Bias of a forward pass or a transposed convolution.
    pub bias: Option<Facts>,
    /// The rest.
    pub config: Config,
}

fn torch_name(code: i32) -> &'static str {
    match code {
        0 => "uint8",
        1 => "int8",
        2 => "int16",
        3 => "int32",
        4 => "int64",
        5 => "float16",
        6 => "float32",
        7 => "float64",
        8..=10 => "a complex type",
        11 => "bool",
        15 => "bfloat16",
        _ => "another type",
    }
}

fn dtype_name(dtype: Result<DType, i32>) -> &'static str {
    match dtype {
        Ok(DType::F32) => "float32",
        Ok(DType::F64) => "float64",
        Ok(DType::Bf16) => "bfloat16",
        Ok(DType::F16) => "float16",
        Ok(DType::I32) => "int32",
        Ok(DType::I64) => "int64",
        Err(code) => torch_name(code),
    }
}

fn demand(holds: bool, complaint: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(complaint()) }
}

impl Request {
    /// Argument names of the operands.
    fn names(&self) -> [&'static str; 2] {
        match self.pass {
            Pass::Fwd => ["input", "weight"],
            Pass::Dx => ["grad", "weight"],
            Pass::Dw => ["grad", "input"],
        }
    }

    /// The problem this asks for, or what is wrong with which argument.
    pub fn problem(&self) -> Result<Problem, String> {
        self.lifted().checked()
    }

    /// The same with the unit axis of a weight that came without.
    fn lifted(&self) -> Request {
        let mut made = *self;
        let [first, second] = &mut made.operands;
        if self.pass != Pass::Dw && second.shape.dim + 1 == first.shape.dim && (2..MAX_DIM).contains(&second.shape.dim)
        {
            let shape = &mut second.shape;
            shape.sizes[1..].rotate_right(1);
            shape.strides[1..].rotate_right(1);
            (shape.sizes[1], shape.strides[1]) = (1, 1);
            shape.dim += 1;
        }
        made
    }

    fn checked(&self) -> Result<Problem, String> {
        let rank = self.rank()?;
        let (dtype, weight_dtype) = self.dtypes()?;
        self.lists(rank)?;
        let channels = self.channels()?;
        self.bias_fits(channels, weight_dtype)?;
        let mut axes = [Axis::UNIT; 3];
        for (axis, made) in axes.iter_mut().enumerate().take(rank) {
            *made = self.axis(axis).map_err(|why| format!("spatial dimension {axis}: {why}"))?;
        }
        let first = &self.operands[0].shape;
        let geometry = Geometry::new(first.sizes[0], channels, &axes[..rank])?;
        let last = !first.is_contiguous() && first.is_channels_last();
        let layout = if last { Layout::Nhwc } else { Layout::Nchw };
        // Under autocast the permission may come with tensors that it does not speak of.
        let tf32 = self.config.tf32 && (dtype, self.device) == (DType::F32, Device::Cuda);
        Ok(Problem { pass: self.pass, dtype, weight_dtype, layout, device: self.device, tf32, geometry })
    }

    fn rank(&self) -> Result<usize, String> {
        let [name, other] = self.names();
        let [dim, second] = [self.operands[0].shape.dim, self.operands[1].shape.dim];
        demand((3..=MAX_DIM).contains(&dim), || {
            format!("{name}: expected 3 to 5 dimensions (batch, channels, 1 to 3 spatial ones), got {dim}")
        })?;
        demand(second == dim, || format!("{other}: expected {dim} dimensions like {name}, got {second}"))?;
        Ok(dim - 2)
    }

    fn dtypes(&self) -> Result<(DType, DType), String> {
        let [name, other] = self.names();
        let [first, second] = [self.operands[0].dtype, self.operands[1].dtype];
        let Ok(dtype) = first else {
            let got = dtype_name(first);
            return Err(format!("{name}: expected float32, float64, bfloat16 or float16, got {got}"));
        };
        if self.pass == Pass::Dw {
            demand(second == first, || {
                format!("{other}: expected {} like {name}, got {}", dtype_name(first), dtype_name(second))
            })?;
            return Ok((dtype, if self.config.wide { dtype.accumulator() } else { dtype }));
        }
        match second {
            Ok(weight) if weight == dtype || weight == dtype.accumulator() => Ok((dtype, weight)),
            _ => {
                let wide = if dtype.accumulator() == dtype { "" } else { " or float32" };
                Err(format!("{other}: expected {}{wide} beside {name}, got {}", dtype_name(first), dtype_name(second)))
            }
        }
    }

    fn lists(&self, rank: usize) -> Result<(), String> {
        let Config { stride, dilation, padding, kernel, output_padding, .. } = &self.config;
        let none = Default::default();
        let kernel = if self.pass == Pass::Dw { Some(kernel.as_ref().unwrap_or(&none)) } else { None };
        let lists = [
            ("stride", Some(stride)),
            ("dilation", Some(dilation)),
            ("padding", Some(&padding.0)),
            ("kernel_size", kernel),
            ("output_padding", output_padding.as_ref()),
        ];
        for (name, list) in lists {
            let Some(list) = list else { continue };
            demand(list.len() == rank, || format!("{name}: expected {rank} entries, got {}", list.len()))?;
        }
        Ok(())
    }

    fn channels(&self) -> Result<Channels, String> {
        let [name, other] = self.names();
        let [first, second] = [&self.operands[0].shape.sizes, &self.operands[1].shape.sizes];
        let groups = match (self.config.groups, self.pass) {
            (Some(groups), _) => groups,
            (None, Pass::Fwd) => first[1],
            (None, Pass::Dw) => second[1],
            (None, Pass::Dx) => return Err("groups: expected in the configuration of an input gradient".into()),
        };
        demand(groups >= 1, || format!("groups: expected at least 1, got {groups}"))?;
        let divided = |name: &str, what: &str, count: i64| {
            demand(count % groups == 0, || format!("{name}: expected {what} divisible by groups={groups}, got {count}"))
                .map(|()| count / groups)
        };
        if self.pass == Pass::Dw {
            demand(first[0] == second[0], || format!("{other}: expected batch {}, got {}", first[0], second[0]))?;
            let c_out = divided(name, "channels", first[1])?;
            return Ok(Channels { groups, c_in: divided(other, "channels", second[1])?, c_out });
        }
        let c_out = divided(other, "output channels", second[0])?;
        let c_in = second[1];
        let expected = if self.pass == Pass::Fwd { c_in.checked_mul(groups) } else { Some(second[0]) };
        demand(expected == Some(first[1]), || {
            let sizes = &self.operands[1].shape.sizes();
            format!(
                "{name}: expected {} channels for weight of size {sizes:?} and groups={groups}, got {}",
                expected.map_or("too many".into(), |count| count.to_string()),
                first[1]
            )
        })?;
        Ok(Channels { groups, c_in, c_out })
    }

    fn bias_fits(&self, channels: Channels, weight_dtype: DType) -> Result<(), String> {
        let Some(bias) = &self.bias else { return Ok(()) };
        let each = if self.pass == Pass::Dx { channels.c_in } else { channels.c_out };
        let expected = each.checked_mul(channels.groups).ok_or("bias: too many channels")?;
        demand(bias.shape.sizes() == [expected] && bias.shape.dim == 1, || {
            format!("bias: expected size [{expected}], got {:?}", bias.shape.sizes())
        })?;
        demand(bias.dtype == Ok(weight_dtype), || {
            let (wanted, got) = (dtype_name(Ok(weight_dtype)), dtype_name(bias.dtype));
            format!("bias: expected {wanted} like weight, got {got}")
        })
    }

    fn axis(&self, axis: usize) -> Result<Axis, String> {
        let [first, second] = [&self.operands[0].shape.sizes, &self.operands[1].shape.sizes];
        let Config { stride, dilation, padding, .. } = &self.config;
        let [stride, dilation, low, high] = [stride, dilation, &padding.0, &padding.1].map(|list| list.values()[axis]);
        let pad = (low, high);
        let list = if self.pass == Pass::Dw { &self.config.kernel } else { &self.config.output_padding };
        let extra = list.as_ref().map_or(0, |list| list.values()[axis]);
        match self.pass {
            Pass::Fwd => {
                demand(first[2 + axis] >= 1, || format!("input: expected positions, got {}", first[2 + axis]))?;
                Axis::new(first[2 + axis], second[2 + axis], stride, dilation, pad)
            }
            Pass::Dx => {
                for (name, value) in [("kernel size", second[2 + axis]), ("stride", stride), ("dilation", dilation)] {
                    demand(value >= 1, || format!("{name}: expected at least 1, got {value}"))?;
                }
                demand(extra >= 0, || format!("output_padding: expected at least 0, got {extra}"))?;
                Axis::transposed(first[2 + axis], second[2 + axis], stride, dilation, pad, extra)
            }
            Pass::Dw => {
                let made = Axis::new(second[2 + axis], extra, stride, dilation, pad)?;
                demand(made.output() == first[2 + axis], || {
                    format!("grad: expected size {}, got {}", made.output(), first[2 + axis])
                })?;
                Ok(made)
            }
        }
    }

    /// Whether the operands must be copied first, being not dense in the problem's memory order.
    pub fn needs_copy(&self, layout: Layout) -> [bool; 2] {
        let dense = |shape: &Shape, last: bool| if last { shape.is_channels_last() } else { shape.is_contiguous() };
        let last = layout == Layout::Nhwc;
        [!dense(&self.operands[0].shape, last), !dense(&self.operands[1].shape, last && self.pass == Pass::Dw)]
    }

    /// Sizes and strides of the result.
    pub fn result(&self, problem: &Problem) -> Shape {
        let g = &problem.geometry;
        let (lead, channels) = match self.pass {
            Pass::Fwd => (g.batch(), g.groups() * g.c_out()),
            Pass::Dx => (g.batch(), g.groups() * g.c_in()),
            Pass::Dw => (g.groups() * g.c_out(), g.c_in()),
        };
        let mut sizes = [lead, channels, 1, 1, 1];
        for (size, axis) in sizes[2..].iter_mut().zip(g.real_axes()) {
            *size = axis.extent(self.pass);
        }
        Shape::dense(&sizes[..2 + g.rank()], problem.layout == Layout::Nhwc && self.pass != Pass::Dw)
    }
}

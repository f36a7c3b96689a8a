//! SGD, Adam and LARS over a fixed list of parameters.

use super::Schedule;
use crate::autograd::Gradients;
use crate::error::{Error, Result};
use crate::nn::{Parameter, check_distinct};
use crate::ops::conv2d::{prepare_copies, share_copies};
use crate::ops::optimizer::{AdamStep, AdamUpdate, LarsStep, LarsUpdate, SgdStep, SgdUpdate};
use crate::tensor::{DType, Flat, Tensor};

/// Stochastic gradient descent with momentum, plain or Nesterov's, as `torch.optim.SGD`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SgdOptions {
    pub momentum: f32,
    pub nesterov: bool,
    /// Added to the gradient as `weight_decay * parameter`.
    pub weight_decay: f32,
}

/// Adam (Kingma and Ba 2015), as `torch.optim.Adam`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamOptions {
    pub beta1: f32,
    pub beta2: f32,
    pub eps: f32,
    /// Added to the gradient as `weight_decay * parameter`.
    pub weight_decay: f32,
}

impl Default for AdamOptions {
    /// The defaults of PyTorch: 0.9, 0.999, 1e-8, no weight decay.
    fn default() -> Self {
        AdamOptions {
            beta1: 0.9,
            beta2: 0.999,
            eps: 1e-8,
            weight_decay: 0.0,
        }
    }
}

/// LARS (You, Gitman and Ginsburg 2017) as SimCLR uses it (Chen et al. 2020): SGD with momentum
/// whose rate is adapted to the norms of each weight and its gradient, as
/// [`LarsUpdate`](crate::ops::optimizer::LarsUpdate) defines.
///
/// Parameters with fewer than two dimensions, which are biases and the scales and shifts of batch
/// norms, are neither adapted nor decayed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LarsOptions {
    pub momentum: f32,
    pub weight_decay: f32,
    pub trust_coefficient: f32,
    /// Added to the divisor of the rate.
    pub eps: f32,
}

impl Default for LarsOptions {
    /// Momentum 0.9, weight decay 1e-6 (Chen et al. 2020), trust coefficient 0.001 and eps 1e-8.
    fn default() -> Self {
        LarsOptions {
            momentum: 0.9,
            weight_decay: 1e-6,
            trust_coefficient: 1e-3,
            eps: 1e-8,
        }
    }
}

/// The update rule of an optimiser, with its settings, which are constant during a run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum OptimizerOptions {
    Adam(AdamOptions),
    Sgd(SgdOptions),
    Lars(LarsOptions),
}

impl OptimizerOptions {
    /// SGD with Nesterov momentum 0.9.
    pub fn nesterov(weight_decay: f32) -> Self {
        OptimizerOptions::Sgd(SgdOptions {
            momentum: 0.9,
            nesterov: true,
            weight_decay,
        })
    }

    /// Adam with the default options of PyTorch and this weight decay.
    pub fn adam(weight_decay: f32) -> Self {
        OptimizerOptions::Adam(AdamOptions {
            weight_decay,
            ..AdamOptions::default()
        })
    }

    /// LARS with the default options and this weight decay.
    pub fn lars(weight_decay: f32) -> Self {
        OptimizerOptions::Lars(LarsOptions {
            weight_decay,
            ..LarsOptions::default()
        })
    }

    /// The weight decay of the rule.
    pub fn weight_decay(&self) -> f32 {
        match self {
            OptimizerOptions::Adam(options) => options.weight_decay,
            OptimizerOptions::Sgd(options) => options.weight_decay,
            OptimizerOptions::Lars(options) => options.weight_decay,
        }
    }

    /// The name in configurations.
    pub fn name(&self) -> &'static str {
        match self {
            OptimizerOptions::Adam(_) => "adam",
            OptimizerOptions::Sgd(options) if options.nesterov => "sgd-nesterov",
            OptimizerOptions::Sgd(_) => "sgd",
            OptimizerOptions::Lars(_) => "lars",
        }
    }

    /// The names of the state tensors of each parameter.
    fn state_names(&self) -> &'static [&'static str] {
        match self {
            OptimizerOptions::Adam(_) => &["first_moment", "second_moment"],
            OptimizerOptions::Sgd(_) | OptimizerOptions::Lars(_) => &["momentum"],
        }
    }
}

/// An optimiser, its base learning rate, and the schedule of the rate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Optimization {
    pub optimizer: OptimizerOptions,
    pub learning_rate: f64,
    pub schedule: Schedule,
}

impl Optimization {
    /// Adam with a constant learning rate.
    pub fn adam(learning_rate: f64) -> Self {
        Optimization {
            optimizer: OptimizerOptions::adam(0.0),
            learning_rate,
            schedule: Schedule::constant(),
        }
    }

    /// SGD with Nesterov momentum 0.9 and a constant learning rate.
    pub fn sgd(learning_rate: f64) -> Self {
        Optimization {
            optimizer: OptimizerOptions::nesterov(0.0),
            ..Optimization::adam(learning_rate)
        }
    }

    /// The learning rate of step `step`, counted from 0.
    pub fn rate(&self, step: u64) -> f32 {
        self.schedule.learning_rate(self.learning_rate, step)
    }
}

/// An optimiser over a fixed list of parameters, with its state on their device.
///
/// On a GPU, the parameters are moved next to each other, and so are their gradients and their
/// state. SGD and Adam update all of them in one kernel. LARS takes three kernels per weight and
/// one per other parameter, and so do gradients that are elsewhere in memory.
pub struct Optimizer {
    options: OptimizerOptions,
    parameters: Vec<Parameter>,
    /// For each of [`OptimizerOptions::state_names`], one tensor per parameter, named
    /// `STATE.PARAMETER`.
    state: Vec<Vec<Parameter>>,
    flat: Option<FlatParameters>,
    steps: u32,
}

/// The memory of parameters, of their gradients and of their state.
struct FlatParameters {
    parameters: Flat,
    /// Backward passes store the gradients here, as far as nothing else uses the places.
    gradients: Flat,
    state: Vec<Flat>,
}

impl FlatParameters {
    /// `None` if the parameters cannot be in one region.
    fn new(parameters: &[&Tensor], states: usize) -> Result<Option<Self>> {
        let Some(flat) = Flat::of(parameters)? else {
            return Ok(None);
        };
        let mut others = Vec::with_capacity(1 + states);
        for _ in 0..=states {
            match Flat::like(parameters)? {
                Some(flat) => others.push(flat),
                None => return Ok(None),
            }
        }
        let gradients = others.remove(0);
        gradients.set_slots(parameters)?;
        share_copies(parameters, &flat);
        Ok(Some(FlatParameters {
            parameters: flat,
            gradients,
            state: others,
        }))
    }
}

/// The tensors of an update.
struct Updated<'a> {
    parameter: &'a Tensor,
    gradient: &'a Tensor,
    state: Vec<&'a Tensor>,
}

impl Optimizer {
    /// An optimiser that has taken no step. The parameters are shared, not copied. On a GPU, they
    /// change their place in memory.
    ///
    /// # Errors
    /// `Error::Usage` if two parameters share a name or their elements, or if one is not f32;
    /// `Error::Device` if memory for the state is short.
    pub fn new(parameters: &[&Parameter], options: OptimizerOptions) -> Result<Self> {
        check_distinct(parameters)?;
        if let Some(other) = parameters.iter().find(|p| p.value.dtype() != DType::F32) {
            return Err(Error::usage(format!(
                "parameter {} is {}; expected f32",
                other.name,
                other.value.dtype()
            )));
        }
        let names = options.state_names();
        let values: Vec<&Tensor> = parameters.iter().map(|p| &p.value).collect();
        let flat = FlatParameters::new(&values, names.len())?;
        let zeros = |number: usize, index: usize| {
            let value = values[index];
            Ok(Parameter {
                name: format!("{}.{}", names[number], parameters[index].name),
                value: match &flat {
                    Some(flat) => flat.state[number].part(index, value.shape()),
                    None => Tensor::zeros(value.shape(), DType::F32, &value.device())?,
                },
            })
        };
        let zeros = |number| (0..values.len()).map(|i| zeros(number, i)).collect();
        let state = (0..names.len()).map(zeros).collect::<Result<_>>()?;
        Ok(Optimizer {
            options,
            parameters: parameters.iter().map(|&p| p.clone()).collect(),
            state,
            flat,
            steps: 0,
        })
    }

    /// Updates every parameter. If `gate` (u32 `[1]`) is set on the device, parameters and state
    /// keep their values, but [`Optimizer::steps`] still increases.
    ///
    /// # Errors
    /// `Error::Usage` that names a parameter without gradient. In that case, nothing changes.
    pub fn step(
        &mut self,
        learning_rate: f32,
        gradients: &Gradients,
        gate: Option<&Tensor>,
    ) -> Result<()> {
        let found = self.gradients(gradients)?;
        let settings = (learning_rate, gradients.scale(), gate);
        match self.flat_of(&found) {
            Some(flat) if !matches!(self.options, OptimizerOptions::Lars(_)) => {
                let updated = Updated {
                    parameter: flat.parameters.whole(),
                    gradient: flat.gradients.whole(),
                    state: flat.state.iter().map(Flat::whole).collect(),
                };
                self.update(settings, &updated)?;
            }
            _ => {
                for (i, gradient) in found.into_iter().enumerate() {
                    let updated = Updated {
                        parameter: &self.parameters[i].value,
                        gradient,
                        state: self.state.iter().map(|state| &state[i].value).collect(),
                    };
                    self.update(settings, &updated)?;
                }
            }
        }
        self.steps = self.steps.saturating_add(1);
        Ok(())
    }

    fn update(
        &self,
        (learning_rate, gradient_scale, gate): (f32, f32, Option<&Tensor>),
        updated: &Updated<'_>,
    ) -> Result<()> {
        let &Updated {
            parameter,
            gradient,
            ref state,
        } = updated;
        let device = parameter.device();
        let sgd = |options: SgdOptions| {
            device.run(SgdUpdate {
                step: SgdStep {
                    learning_rate,
                    momentum: options.momentum,
                    nesterov: options.nesterov,
                    weight_decay: options.weight_decay,
                    gradient_scale,
                    first: self.steps == 0,
                },
                parameter,
                gradient,
                momentum: state[0],
                gate,
            })
        };
        match self.options {
            OptimizerOptions::Adam(options) => device.run(AdamUpdate {
                step: AdamStep {
                    learning_rate,
                    beta1: options.beta1,
                    beta2: options.beta2,
                    eps: options.eps,
                    weight_decay: options.weight_decay,
                    gradient_scale,
                    step: self.steps.saturating_add(1),
                },
                parameter,
                gradient,
                first_moment: state[0],
                second_moment: state[1],
                gate,
            }),
            OptimizerOptions::Sgd(options) => sgd(options),
            OptimizerOptions::Lars(options) if parameter.shape().len() < 2 => sgd(SgdOptions {
                momentum: options.momentum,
                nesterov: false,
                weight_decay: 0.0,
            }),
            OptimizerOptions::Lars(options) => device.run(LarsUpdate {
                step: LarsStep {
                    learning_rate,
                    momentum: options.momentum,
                    weight_decay: options.weight_decay,
                    trust_coefficient: options.trust_coefficient,
                    eps: options.eps,
                    gradient_scale,
                },
                parameter,
                gradient,
                momentum: state[0],
                gate,
            }),
        }
    }

    /// Allocates what passes with activations of this type keep from step to step.
    ///
    /// # Errors
    /// `Error::Device` if memory is short.
    pub(crate) fn prepare(&self, activations: DType) -> Result<()> {
        let first = self.parameters.first();
        first.map_or(Ok(()), |p| prepare_copies(&p.value, activations))
    }

    /// The memory of the parameters, if `gradients` and parameters are in it.
    fn flat_of(&self, gradients: &[&Tensor]) -> Option<&FlatParameters> {
        self.flat.as_ref().filter(|flat| {
            let values = self.parameters.iter().map(|p| &p.value);
            flat.parameters.holds(values) && flat.gradients.holds(gradients.iter().copied())
        })
    }

    /// All of `gradients` as one tensor, if they are those of the parameters and next to each other
    /// in memory.
    pub(crate) fn whole_gradient(&self, gradients: &Gradients) -> Option<&Tensor> {
        let found = self.gradients(gradients).ok()?;
        let are_all = found.len() == gradients.iter().count();
        let flat = self.flat_of(&found).filter(|_| are_all)?;
        Some(flat.gradients.whole())
    }

    /// The gradient of each parameter.
    fn gradients<'a>(&self, gradients: &'a Gradients) -> Result<Vec<&'a Tensor>> {
        let of = |parameter: &Parameter| {
            gradients.of(&parameter.value).ok_or_else(|| {
                Error::usage(format!(
                    "parameter {} has no gradient: the loss does not depend on it, or only under another shape; leave \
                     it out, or reshape the Var and not the tensor",
                    parameter.name
                ))
            })
        };
        self.parameters.iter().map(of).collect()
    }

    /// The number of steps taken.
    pub fn steps(&self) -> u32 {
        self.steps
    }

    /// Sets the number of steps, after a state was loaded.
    pub fn resume_at(&mut self, steps: u32) {
        self.steps = steps;
    }

    /// The tensors of the state. A checkpoint stores them and the number of steps.
    pub fn state(&self) -> Vec<&Parameter> {
        self.state.iter().flatten().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::autograd::Tape;
    use crate::device::Device;
    use crate::testing::{bits, devices, get, normal, put, random};

    /// A weight, a bias and their gradients in each of `steps` steps.
    fn problem(device: &Device, steps: usize) -> ([Parameter; 2], Vec<[Tensor; 2]>) {
        let mut rng = random(80);
        let shapes: [&[usize]; 2] = [&[7, 11], &[11]];
        let mut draw = |shape: &[usize]| {
            let values = normal(&mut rng, shape.iter().product());
            put(device, &values, shape)
        };
        let parameters = ["weight", "bias"].map(str::to_string);
        let parameters = [0, 1].map(|i| Parameter {
            name: parameters[i].clone(),
            value: draw(shapes[i]),
        });
        let gradients = (0..steps).map(|_| shapes.map(&mut draw)).collect();
        (parameters, gradients)
    }

    fn step(optimizer: &mut Optimizer, parameters: &[Parameter; 2], gradients: &[Tensor; 2]) {
        let tape = Tape::new(&parameters[0].value.device());
        // The sum of products with constants has them as gradients.
        let losses = [0, 1].map(|i| {
            let leaf = tape.leaf(&parameters[i].value);
            let width = leaf.shape().iter().product();
            let row = leaf.reshape(&[1, width]).expect("as many elements");
            let factors = tape.constant(&gradients[i]);
            let factors = factors.reshape(&[1, width]).expect("as many elements");
            let bias = tape.constant(&Tensor::zeros(&[1], DType::F32, &row.device()).expect("one"));
            row.linear(&factors, &bias).expect("they fit")
        });
        let loss = losses[0].add(&losses[1]).expect("two numbers").sum();
        let gradients = loss.expect("a number").backward().expect("two leaves");
        optimizer
            .step(0.5, &gradients, None)
            .expect("they have gradients");
    }

    fn values(tensors: &[&Parameter]) -> Vec<Vec<u32>> {
        tensors.iter().map(|p| bits(&get(&p.value))).collect()
    }

    #[test]
    fn a_resumed_optimiser_continues_with_the_same_bits() {
        for options in [
            OptimizerOptions::adam(0.01),
            OptimizerOptions::nesterov(0.01),
            OptimizerOptions::lars(0.01),
        ] {
            for (name, device) in devices::all() {
                let (parameters, gradients) = problem(&device, 6);
                let both: Vec<&Parameter> = parameters.iter().collect();
                let mut whole = Optimizer::new(&both, options).expect("distinct");
                let mut stored = Vec::new();
                for (number, gradients) in gradients.iter().enumerate() {
                    if number == 3 {
                        let all = both.iter().copied().chain(whole.state());
                        stored = all.map(|p| (p.name.clone(), get(&p.value))).collect();
                    }
                    step(&mut whole, &parameters, gradients);
                }
                let (again, _) = problem(&device, 0);
                let mut resumed = Optimizer::new(&again.each_ref(), options).expect("distinct");
                for parameter in again.iter().chain(resumed.state()) {
                    let found = stored.iter().find(|(name, _)| *name == parameter.name);
                    let (_, values) = found.expect("a stored tensor of this name");
                    parameter.value.overwrite(values).expect("the same size");
                }
                resumed.resume_at(3);
                for gradients in &gradients[3..] {
                    step(&mut resumed, &again, gradients);
                }
                let case = format!("{} on {name}", options.name());
                assert_eq!(values(&both), values(&again.each_ref()), "{case}");
                assert_eq!(values(&whole.state()), values(&resumed.state()), "{case}");
            }
        }
    }

    #[test]
    fn lars_treats_a_bias_as_sgd_without_decay() {
        let sgd = OptimizerOptions::Sgd(SgdOptions {
            momentum: 0.9,
            nesterov: false,
            weight_decay: 0.0,
        });
        for (name, device) in devices::all() {
            let moved = |options| {
                let (parameters, gradients) = problem(&device, 3);
                let mut optimizer =
                    Optimizer::new(&parameters.each_ref(), options).expect("distinct");
                for gradients in &gradients {
                    step(&mut optimizer, &parameters, gradients);
                }
                parameters.map(|p| bits(&get(&p.value)))
            };
            let [lars, sgd] = [OptimizerOptions::lars(0.1), sgd].map(moved);
            assert_eq!(lars[1], sgd[1], "the bias on {name}");
            assert_ne!(lars[0], sgd[0], "the weight on {name}");
        }
    }
}

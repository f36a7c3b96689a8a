//! White-box attacks on a classifier: FGSM (Goodfellow, Shlens and Szegedy 2015) and PGD (Madry et al. 2018), within a
//! ball of the maximum norm around each image.

use crate::augment::CIFAR10_STATISTICS;
use crate::autograd::{self, Tape, Var};
use crate::device::Device;
use crate::device::kernels::{AttackStep, NoiseKey};
use crate::error::{Error, Result};
use crate::objectives::Protocol;
use crate::tensor::Tensor;

/// How an image is changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// One step of size eps along the sign of the gradient.
    Fgsm,
    /// Steps along the sign of the gradient from a random start in the ball, each followed by a projection on it.
    Pgd { iterations: u32 },
}

/// In what eps counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Units {
    /// Pixels from 0 to 1, before they are normalised.
    Pixels,
    /// Pixels normalised by CIFAR-10's mean and standard deviation, in the range of the evaluated paper's code.
    Normalized,
}

impl Units {
    /// The units of `protocol`.
    pub fn of(protocol: Protocol) -> Self {
        match protocol {
            Protocol::Sound => Units::Pixels,
            Protocol::Paper => Units::Normalized,
        }
    }

    /// Lowest and highest value of a pixel.
    pub fn range(self) -> [f32; 2] {
        match self {
            Units::Pixels => [0.0, 1.0],
            Units::Normalized => [-2.4291, 2.7537],
        }
    }
}

/// An attack of one strength.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AttackSettings {
    pub method: Method,
    pub units: Units,
    /// Half the side of the ball.
    pub eps: f32,
    /// The size of one step.
    pub alpha: f32,
}

impl AttackSettings {
    /// The attack of `protocol`: PGD's step is 2.5 eps / iterations of pixels in [0, 1], or under the paper's code 1.85
    /// eps / iterations of normalised ones; FGSM's is eps.
    ///
    /// # Errors
    /// `Error::Usage` for an eps that is negative or not finite, or no iterations.
    pub fn of_protocol(protocol: Protocol, method: Method, eps: f32) -> Result<Self> {
        if !(eps.is_finite() && eps >= 0.0) {
            return Err(Error::usage(format!(
                "eps is {eps}; expected a finite number, 0 or more"
            )));
        }
        let units = Units::of(protocol);
        let factor = match units {
            Units::Pixels => 2.5,
            Units::Normalized => 1.85,
        };
        let alpha = match method {
            Method::Fgsm => eps,
            Method::Pgd { iterations: 0 } => {
                return Err(Error::usage("PGD with 0 iterations; use 1 or more"));
            }
            Method::Pgd { iterations } => factor * eps / iterations as f32,
        };
        Ok(AttackSettings {
            method,
            units,
            eps,
            alpha,
        })
    }

    fn step(&self, alpha: f32) -> AttackStep {
        let [low, high] = self.units.range();
        AttackStep {
            alpha,
            eps: self.eps,
            low,
            high,
        }
    }
}

/// `images` (in [0, 1]) in the units of an attack.
pub fn in_units(device: &Device, units: Units, images: &Tensor) -> Result<Tensor> {
    let (mean, std) = CIFAR10_STATISTICS;
    match units {
        Units::Pixels => Ok(images.clone()),
        Units::Normalized => device.normalize(images, mean, std),
    }
}

/// What a network sees of images in the units of an attack: normalised pixels.
pub fn network_input(tape: &Tape, units: Units, images: &Var) -> Result<Var> {
    let (mean, std) = CIFAR10_STATISTICS;
    match units {
        Units::Pixels => autograd::normalize(tape, images, mean, std),
        Units::Normalized => Ok(images.clone()),
    }
}

/// `clean` (`[N, 3, H, W]` in the settings' units) moved to where the loss of `classifier` against `labels` (u32 `[N]`)
/// is higher: within eps of `clean`, but for the rounding of `clean +- eps`, and within the units' range. `classifier`
/// maps such images to logits `[N, classes]`; it runs in evaluation mode, so that an image's result is its own. `key`
/// names PGD's random start.
///
/// Of the paper's range, the end of 2.7537 is rounded: a blue of 1 is 2.75373 when normalised, and is moved to 2.7537
/// by any eps but 0, even by one below that difference.
///
/// # Errors
/// As the classifier; `Error::Shape` where labels do not fit.
pub fn perturb(
    device: &Device,
    classifier: impl Fn(&Tape, &Var) -> Result<Var>,
    clean: &Tensor,
    labels: &Tensor,
    settings: &AttackSettings,
    key: NoiseKey,
) -> Result<Tensor> {
    let start = match settings.method {
        _ if settings.eps == 0.0 => return Ok(clean.clone()),
        Method::Fgsm => clean.clone(),
        Method::Pgd { .. } => {
            let noise = device.uniform(key, -settings.eps, settings.eps, clean.shape())?;
            let moved = device.add(clean, &noise)?;
            device.attack_step(settings.step(0.0), &moved, &noise, clean)?
        }
    };
    climb(device, classifier, &start, clean, labels, settings)
}

/// The steps of an attack from `start`, which lies in the ball around `clean`. Otherwise as [`perturb`].
///
/// # Errors
/// As [`perturb`].
pub fn climb(
    device: &Device,
    classifier: impl Fn(&Tape, &Var) -> Result<Var>,
    start: &Tensor,
    clean: &Tensor,
    labels: &Tensor,
    settings: &AttackSettings,
) -> Result<Tensor> {
    let iterations = match settings.method {
        Method::Fgsm => 1,
        Method::Pgd { iterations } => iterations,
    };
    let mut x = start.clone();
    for _ in 0..iterations {
        let dx = input_gradient(device, &classifier, &x, labels)?;
        x = device.attack_step(settings.step(settings.alpha), &x, &dx, clean)?;
        device.submit()?;
    }
    Ok(x)
}

/// The gradient of the mean cross-entropy with respect to the images `x`, and to nothing else.
///
/// # Errors
/// As [`perturb`].
pub fn input_gradient(
    device: &Device,
    classifier: impl Fn(&Tape, &Var) -> Result<Var>,
    x: &Tensor,
    labels: &Tensor,
) -> Result<Tensor> {
    let tape = Tape::of_input(device);
    let logits = classifier(&tape, &tape.input(x))?;
    let loss = autograd::softmax_cross_entropy(&tape, &logits, labels)?;
    let gradients = tape.backward(&loss)?;
    gradients.of(x).cloned().ok_or_else(|| {
        Error::shape(
            "attack",
            "the classifier's logits do not depend on its images",
        )
    })
}

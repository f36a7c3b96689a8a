//! One operation, step by step: the calls and kernel launches of its forward and backward pass, and
//! a gradient check. A browser's page shows them.

use crate::autograd::gradcheck::{GradientCheck, LeafGradient};
use crate::device::Device;
use crate::device::profiler::Trace;
use crate::error::{Error, Result};
use crate::ops::CASES;
use crate::testing::Tester;
use crate::testing::tester::StartedCheck;

/// A case of an operation, whose gradient check may not have been computed yet.
pub struct StepThrough {
    /// The names of all cases of the operation that have a gradient check.
    pub cases: Vec<String>,
    /// The shape of each leaf, which is an argument with a gradient.
    pub shapes: Vec<Vec<usize>>,
    /// The calls of the forward pass, and those of the backward pass.
    pub passes: [Trace; 2],
    check: GradientCheck,
}

impl StepThrough {
    /// Waits for the gradient of each leaf. Outside of a browser, it blocks the thread.
    ///
    /// # Errors
    /// `Error::Device` if the device was lost.
    pub async fn gradients(self) -> Result<Vec<LeafGradient>> {
        self.check.finish().await
    }
}

/// The names of the operations that have gradients, as their folders are named.
pub fn differentiable() -> [&'static str; 11] {
    [
        "gemm",
        "conv2d",
        "batch_norm",
        "pool",
        "l2_normalize",
        "nt_xent",
        "cross_entropy",
        "elementwise",
        "reduce",
        "copy",
        "images",
    ]
}

/// Records the passes of case `case` of `operation`, and its gradient check, without waiting.
///
/// # Errors
/// `Error::Usage` if there is no such operation or case; `Error::Device` if memory is short or the
/// device was lost.
pub fn step_through(device: &Device, operation: &str, case: usize) -> Result<StepThrough> {
    let found = CASES.iter().find(|(name, _)| *name == operation);
    let Some((_, run)) = found else {
        return Err(Error::usage(format!(
            "there is no operation {operation}; expected one of {}",
            differentiable().join(", ")
        )));
    };
    let collected = Tester::collect(device, *run, case)?;
    let Some(StartedCheck {
        shapes,
        passes,
        check,
    }) = collected.started
    else {
        return Err(Error::usage(format!(
            "{operation} has {} cases with a gradient check, counted from 0; there is no case {case}",
            collected.cases.len()
        )));
    };
    Ok(StepThrough {
        cases: collected.cases,
        shapes,
        passes,
        check,
    })
}

#[cfg(test)]
mod tests {
    use super::{differentiable, step_through};
    use crate::autograd::gradcheck::LeafGradient;
    use crate::device::block_on;
    use crate::ops::CASES;
    use crate::testing::{Tester, devices};

    #[test]
    fn every_operation_with_a_gradient_check_is_listed() {
        let device = devices::cpu();
        for &(name, run) in CASES {
            let cases = Tester::collect(&device, run, usize::MAX).unwrap().cases;
            assert_eq!(
                differentiable().contains(&name),
                !cases.is_empty(),
                "{name}"
            );
        }
    }

    #[test]
    fn a_case_has_its_calls_launches_and_gradients() {
        for (name, device) in devices::all() {
            let steps = step_through(&device, "l2_normalize", 0).expect(name);
            let [forward, backward] = &steps.passes;
            assert_eq!(forward.calls[0].name, "l2_normalize", "{name}");
            assert_eq!(forward.calls[0].work.shapes[0], steps.shapes, "{name}");
            let backward_name = backward.calls[0].name;
            assert_eq!(backward_name, "l2_normalize_backward", "{name}");
            let launches = usize::from(device.as_gpu().is_some());
            assert_eq!(forward.launches.len(), launches, "{name}");
            let gradients = block_on(steps.gradients()).expect(name);
            let errors = gradients.iter().map(LeafGradient::relative_error);
            assert!(errors.clone().all(|error| error < 2e-3), "{name}");
            assert_eq!(errors.count(), 1, "{name}");
        }
        let device = devices::cpu();
        for (operation, case) in [("nothing", 0), ("gemm", 1000)] {
            assert!(step_through(&device, operation, case).is_err());
        }
    }
}

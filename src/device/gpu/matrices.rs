//! Cooperative matrices: products that the subgroups of a workgroup compute on matrix units, of f16
//! factors with f32 sums.

/// The features that kernels with matrices need.
pub(super) const FEATURES: wgpu::Features = wgpu::Features::SHADER_F16
    .union(wgpu::Features::SUBGROUP)
    .union(wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX);

/// Rows of the matrices that kernels have, and the size of the subgroups that they are written for.
/// Mesa's software adapter has the first ones, and NVIDIA the others. With other vector widths,
/// Mesa's reports the feature, but does not work.
const KERNELS: [(u32, u32); 2] = [(8, 8), (16, 32)];

/// Rows of the square matrices with f16 factors and f32 sums that kernels can use on `adapter`.
pub(super) fn usable(adapter: &wgpu::Adapter) -> Vec<u32> {
    if !adapter.features().contains(FEATURES) {
        return Vec::new();
    }
    let info = adapter.get_info();
    let sizes = [info.subgroup_min_size, info.subgroup_max_size];
    usable_of(sizes, &adapter.cooperative_matrix_properties())
}

fn usable_of(subgroups: [u32; 2], properties: &[wgpu::CooperativeMatrixProperties]) -> Vec<u32> {
    let has = |rows: u32| {
        properties.iter().any(|p| {
            [p.m_size, p.n_size, p.k_size] == [rows; 3]
                && p.ab_type == wgpu::CooperativeScalarType::F16
                && p.cr_type == wgpu::CooperativeScalarType::F32
        })
    };
    let fitting = KERNELS
        .into_iter()
        .filter(|&(rows, lanes)| subgroups == [lanes; 2] && has(rows));
    fitting.map(|(rows, _)| rows).collect()
}

/// The permission to use the experimental feature if there are `matrices`.
pub(super) fn permission(matrices: &[u32]) -> wgpu::ExperimentalFeatures {
    if matrices.is_empty() {
        return wgpu::ExperimentalFeatures::disabled();
    }
    // SAFETY: wgpu may have bugs in experimental features that lead to undefined behaviour. The
    // shaders of this crate that use the feature are variants, and one is selected only if
    // its results on this adapter equal those of the plain variant.
    unsafe { wgpu::ExperimentalFeatures::enabled() }
}

#[cfg(test)]
mod tests {
    use wgpu::CooperativeScalarType::{F16, F32};

    use super::*;

    #[test]
    fn matrices_need_their_size_type_and_subgroups() {
        let of = |size, ab_type| wgpu::CooperativeMatrixProperties {
            m_size: size,
            n_size: size,
            k_size: size,
            ab_type,
            cr_type: F32,
            saturating_accumulation: false,
        };
        let both = [of(8, F16), of(16, F16)];
        for (subgroups, properties, expected) in [
            ([8, 8], &both[..], vec![8]),
            ([32, 32], &both, vec![16]),
            ([32, 64], &both, vec![]),
            ([16, 16], &both, vec![]),
            ([8, 8], &both[1..], vec![]),
            ([32, 32], &[of(16, F32)], vec![]),
            ([32, 32], &[], vec![]),
        ] {
            assert_eq!(usable_of(subgroups, properties), expected, "{subgroups:?}");
        }
        assert!(!permission(&[]).is_enabled());
    }
}

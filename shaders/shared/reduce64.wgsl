// Sums and maxima over a workgroup of 64, in a fixed order. They are returned to every invocation.
var<workgroup> scratch64: array<f32, 64>;

fn workgroup_sum(lane: u32, value: f32) -> f32 {
    scratch64[lane] = value;
    workgroupBarrier();
    for (var step = 32u; step > 0u; step /= 2u) {
        if lane < step {
            scratch64[lane] += scratch64[lane + step];
        }
        workgroupBarrier();
    }
    let sum = scratch64[0];
    workgroupBarrier();
    return sum;
}

fn workgroup_max(lane: u32, value: f32) -> f32 {
    scratch64[lane] = value;
    workgroupBarrier();
    for (var step = 32u; step > 0u; step /= 2u) {
        if lane < step {
            scratch64[lane] = max(scratch64[lane], scratch64[lane + step]);
        }
        workgroupBarrier();
    }
    let largest = scratch64[0];
    workgroupBarrier();
    return largest;
}

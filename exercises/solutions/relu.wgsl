// A solution of exercise 4.

@group(0) @binding(0) var<uniform> count: u32;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> dy: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(64)
fn relu(@builtin(global_invocation_id) at: vec3u, @builtin(num_workgroups) groups: vec3u) {
    let i = at.y * groups.x * 64u + at.x;
    if i < count {
        y[i] = max(x[i], 0.0);
    }
}

@compute @workgroup_size(64)
fn relu_backward(@builtin(global_invocation_id) at: vec3u, @builtin(num_workgroups) groups: vec3u) {
    let i = at.y * groups.x * 64u + at.x;
    if i < count {
        y[i] = select(0.0, dy[i], x[i] > 0.0);
    }
}

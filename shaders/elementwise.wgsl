// Element-wise operations on tensors of any shape.
//
//   add                     y = a + b
//   relu                    y = max(a, 0)
//   relu_backward           y = a if b > 0, else 0   (a = dy, b = the forward result, y = dx)
//   relu_backward_in_place  y = y if b > 0, else 0
//   accumulate              y = y + a
//   scale                   y = factor a
//   broadcast               y = a[0].x
//
// All but scale and broadcast have a variant for f16 tensors.
//
// Each invocation computes one vec4, in workgroups of 256 along one dimension. Tensors are padded
// to 256 bytes: the last vec4 may contain padding, which no kernel reads. `accumulate` does not
// change it, since the zeros between flat tensors have to stay 0.

#f16

#if F16
enable f16;
#end

#import grid
#import real

struct Params {
    // The number of vec4s, and of elements.
    count: u32,
    elements: u32,
    factor: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> a: array<real4>;
@group(0) @binding(2) var<storage, read> b: array<real4>;
@group(0) @binding(3) var<storage, read_write> y: array<real4>;

@compute @workgroup_size(256)
fn add(at: Invocation) {
    let i = index256(at);
    if i < params.count {
        y[i] = real4(vec4f(a[i]) + vec4f(b[i]));
    }
}

@compute @workgroup_size(256)
fn relu(at: Invocation) {
    let i = index256(at);
    if i < params.count {
        let x = vec4f(a[i]);
        // max(x, 0), but NaN if x is NaN.
        y[i] = real4(select(x, vec4f(0.0), x < vec4f(0.0)));
    }
}

@compute @workgroup_size(256)
fn relu_backward(at: Invocation) {
    let i = index256(at);
    if i < params.count {
        y[i] = select(real4(0.0), a[i], vec4f(b[i]) > vec4f(0.0));
    }
}

@compute @workgroup_size(256)
fn relu_backward_in_place(at: Invocation) {
    let i = index256(at);
    if i < params.count {
        y[i] = select(real4(0.0), y[i], vec4f(b[i]) > vec4f(0.0));
    }
}

@compute @workgroup_size(256)
fn accumulate(at: Invocation) {
    let i = index256(at);
    if i < params.count {
        let is_element = 4u * i + vec4u(0u, 1u, 2u, 3u) < vec4u(params.elements);
        y[i] = select(y[i], real4(vec4f(y[i]) + vec4f(a[i])), is_element);
    }
}

#if F16
#else
@compute @workgroup_size(256)
fn scale(at: Invocation) {
    let i = index256(at);
    if i < params.count {
        y[i] = params.factor * a[i];
    }
}

@compute @workgroup_size(256)
fn broadcast(at: Invocation) {
    let i = index256(at);
    if i < params.count {
        y[i] = vec4f(a[0].x);
    }
}
#end

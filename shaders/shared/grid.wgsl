// The index of an invocation in a one-dimensional grid of workgroups. The grid is folded into two
// dimensions if it is longer than a device allows, and may then have a few surplus workgroups.
//
// A parameter `at: Invocation` is expanded to two, `at: Workgroup` and the lane
// (build/preprocess.rs).
struct Workgroup {
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
}

fn workgroup_index(at: Invocation) -> u32 {
    return at.group.y * at.groups.x + at.group.x;
}

// The index of the invocation, in workgroups of 256.
fn index256(at: Invocation) -> u32 {
    return workgroup_index(at) * 256u + at.lane;
}

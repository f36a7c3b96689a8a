// Where an invocation stands in a one-dimensional grid of workgroups, which is folded into two dimensions where it has
// more workgroups than a device takes in one.

struct Invocation {
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) lane: u32,
}

fn workgroup_index(at: Invocation) -> u32 {
    return at.group.y * at.groups.x + at.group.x;
}

// The invocation's index in a grid of workgroups of 256.
fn index256(at: Invocation) -> u32 {
    return workgroup_index(at) * 256u + at.lane;
}

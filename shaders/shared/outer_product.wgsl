// One term of the tiled products: sum{r}_{v} += left[r] right{v}, for ROWS x VECTORS sums of four
// elements. left{q} has four left factors, which are uniform in the workgroup. right{v} has four
// right factors. All rows of one v come first, so its right factors stay in registers.
#for v in 0..VECTORS
#for r in 0..ROWS
#if v == 0
    let factor${r} = vec4f(left${r / 4}[${r % 4}]);
#end
    sum${r}_${v} = fma(factor${r}, right${v}, sum${r}_${v});
#end
#end

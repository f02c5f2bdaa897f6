# What ptxas says of each kernel, a row of a table each; exit 1 when one spills.
/Compiling entry function/ {
    name = $0
    sub(/.*entry function '/, "", name)
    sub(/' for .*/, "", name)
    sub(/\(cuda_op.*/, "", name) # the template's arguments say enough
    sub(/^void /, "", name)
}
/bytes stack frame/ { stack = $1; spilled = $5 + $9 }
/Used [0-9]+ registers/ {
    shared = match($0, /[0-9]+ bytes smem/) ? substr($0, RSTART, RLENGTH - 11) : 0
    match($0, /Used [0-9]+/)
    registers = substr($0, RSTART + 5, RLENGTH - 5)
    rows[n++] = sprintf("| `%s` | %d | %d | %d | %d |", name, registers, shared, stack, spilled)
    n_spilling += spilled > 0
}
END {
    print "| kernel | registers | shared bytes | stack bytes | spilled bytes |\n|---|---|---|---|---|"
    for (i = 0; i < n; i++) print rows[i]
    printf "%d kernels, %d spill\n", n, n_spilling
    exit n == 0 || n_spilling > 0
}

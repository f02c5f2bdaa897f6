# The rules of tools/check_layers over C sources given by name relative to the root of the tree.
BEGIN {
    split("base 0 backend 1 model 2 tokenizer 2 sampling 2 kvcache 2 batching 3 verify 3 rpc 3 " \
          "target 4 draft 5 scheduler 6 server 7 audit 7 bench 8 cli 9", words, " ")
    for (i = 1; i in words; i += 2) level[words[i]] = words[i + 1]
    split("include tests fuzz examples tools gpu", words, " ")
    for (i = 1; i in words; i++) outside[words[i]] = 1
    # built by the compiler into these calls, whatever the suffix
    libm = "(exp|exp2|expm1|log|log2|log10|log1p|pow|tanh|sinh|cosh|erf|cbrt)[fl]?"
    heap = "(malloc|calloc|realloc|reallocarray|free|strdup|strndup|aligned_alloc|posix_memalign|" \
           "asprintf|vasprintf|getline|getdelim|open_memstream)"
}

function finding(line, text) { print FILENAME ":" line ": " text }

# Code without comments; strings become "". Carries an open comment from line to line.
function strip(line,    out, c, two, n, i) {
    out = ""
    n = length(line)
    for (i = 1; i <= n; i++) {
        two = substr(line, i, 2)
        c = substr(line, i, 1)
        if (in_comment) {
            if (two == "*/") { in_comment = 0; i++ }
        } else if (two == "/*") {
            in_comment = 1; i++
        } else if (two == "//") {
            break
        } else if (c == "\"" || c == "'") {
            out = out c c
            for (i++; i <= n && substr(line, i, 1) != c; i++)
                if (substr(line, i, 1) == "\\") i++
        } else {
            out = out c
        }
    }
    return out
}

# Name of the first call in `code` of a function matching `names`, or "". Members do not count.
function calls(code, names,    rest, before, name) {
    rest = " " code
    while (match(rest, "[^A-Za-z0-9_]" names "[ \t]*\\(")) {
        before = substr(rest, 1, RSTART)
        name = substr(rest, RSTART + 1, RLENGTH - 1)
        rest = substr(rest, RSTART + RLENGTH)
        if (before !~ /(\.|->)$/) { sub(/[ \t]*\($/, "", name); return name }
    }
    return ""
}

function check_include(target,    slash, other) {
    if (target ~ /^(cuda|cublas|cuda_)/ && FILENAME !~ /^(backend\/cuda|gpu)\//)
        finding(FNR, "includes " target "; CUDA headers belong to backend/cuda and the GPU suite alone")
    if (target ~ /^nccl/ && FILENAME != "backend/comm_nccl.c")
        finding(FNR, "includes " target "; NCCL headers belong to backend/comm_nccl.c alone")
    if (target ~ /^mpi\.h/ && FILENAME != "backend/comm_mpi.c")
        finding(FNR, "includes " target "; MPI headers belong to backend/comm_mpi.c alone")
    if (target ~ /^msgpack/ && room != "rpc" && FILENAME != "tests/test_rpc.c") # a test reads with it
        finding(FNR, "includes " target "; msgpack headers belong to rpc alone")
    if (!(room in level)) return
    if (target == "tandem.h" || target == "include/tandem.h") {
        if (level[room] < level["scheduler"])
            finding(FNR, "includes the public API, which is built above this room")
        return
    }
    slash = index(target, "/")
    if (!slash) return
    other = substr(target, 1, slash - 1)
    if (other == room || !(other in level)) return
    if (level[other] > level[room])
        finding(FNR, "includes " target " upwards (level " level[room] " to " level[other] ")")
    else if (level[other] == level[room])
        finding(FNR, "includes " target " of the same level; such rooms do not know each other")
    else if (other != "base" && target != other "/" other ".h")
        finding(FNR, "includes " target " past the door " other "/" other ".h")
}

function check_calls(code,    name) {
    name = calls(code, "(getenv|secure_getenv)")
    if (name != "" && FILENAME != "base/conf.c")
        finding(FNR, "calls " name "; only base/conf.c reads the environment")
    name = calls(code, heap)
    if (name != "" && FILENAME != "base/mem.c")
        finding(FNR, "calls " name "; memory comes from base/mem.h")
    name = calls(code, libm)
    if (name != "" && (room == "base" || room == "backend" || room == "model" || room == "sampling") \
        && !(FILENAME == "model/rope.c" && name !~ /[fl]$/))
        finding(FNR, "calls " name " of libm on the model path; use base/mathx.h")
}

function end_file() {
    if (previous == "") return
    if (n_lines > 800)
        print previous ": " n_lines " lines, expected 800 at most"
    if (previous == "include/tandem.h" && n_lines >= 250)
        print previous ": " n_lines " lines, expected under 250"
}

FNR == 1 {
    end_file()
    previous = FILENAME
    room = FILENAME
    sub(/\/.*/, "", room)
    in_comment = in_function = 0
    marked = -10
    if (FILENAME !~ /\//) room = ""
    if (room != "" && !(room in level) && !(room in outside))
        finding(1, "lies in no room of the architecture")
}
{
    n_lines = FNR
    raw = $0
    code = strip(raw)
    if (raw ~ /\/\* long: [^ ]/) marked = FNR
}
/^[ \t]*#[ \t]*include[ \t]/ {
    if (code ~ /include/) {
        target = raw
        sub(/^[^"<]*["<]/, "", target)
        sub(/[">].*/, "", target)
        check_include(target)
    }
    next
}
room in level { check_calls(code) }
# A function's body opens with a brace in the first column, or at the end of its signature there.
!in_function && (code ~ /^\{/ || (code ~ /^[A-Za-z_].*\)[ \t]*\{[ \t]*$/ && code !~ /=/)) {
    in_function = FNR
}
in_function && code ~ /^\}/ {
    body = FNR - in_function
    if (body > 70 && marked < in_function - 4)
        finding(in_function, "a function of " body " lines, expected 70 at most")
    in_function = 0
}
END { end_file() }

# Tables of the figures among lines of JSON, one a kind.
function field(name,    text) {
    if (!match($0, "\"" name "\":(\"[^\"]*\"|[^,}]*)")) return ""
    text = substr($0, RSTART + length(name) + 3, RLENGTH - length(name) - 3)
    gsub(/"/, "", text)
    return text
}
function of_case(    text) {
    match($0, /"case":\{[^}]*\}/)
    text = substr($0, RSTART + 8, RLENGTH - 9)
    gsub(/"/, "", text)
    gsub(/:/, " ", text)
    gsub(/,/, ", ", text)
    return text
}
{ bench = field("bench") }
bench == "gpu-parity" || bench == "gpu-stage" { next }
bench != last {
    printf "\n## %s\n\n| case | median | least ... most | unit | of its bound |\n|---|---|---|---|---|\n", bench
    last = bench
}
{
    fraction = field("fraction")
    printf "| %s | %s | %s ... %s | %s | %s |\n", of_case(), field("median"), field("min"), field("max"), field("unit"), fraction == "null" ? "" : fraction
}

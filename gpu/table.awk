# The summary of a run, from its lines of JSON: each figure that has a goal or is asked about, met or missed or not run;
# what became of the stages; and tables of all figures, one a kind. -v stages: their names, in order.
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

# ---- goals ----
# want NAME BENCH CASE FIELD SENSE GOAL: a row. CASE: members that the case has, as they stand there, "&" between them;
# SENSE: ">" at least, "<" at most, "" no goal.
function want(name, bench, which, what, sense, goal) {
    n_wanted++
    wanted[n_wanted] = name; bench_of[n_wanted] = bench; case_of[n_wanted] = which
    field_of[n_wanted] = what; sense_of[n_wanted] = sense; goal_of[n_wanted] = goal
    places[bench] = places[bench] " " n_wanted
}
function want_all(    n, i, t, plans, types, texts, ways, sizes, agrees, a, s, w, name) {
    split("q4_0 q8_0 bf16", types, " "); split("short long", texts, " ")
    goal_for["q4_0"] = 0.60; goal_for["q8_0"] = 0.70; goal_for["bf16"] = 0.80
    for (i = 1; i <= 3; i++) for (t = 1; t <= 2; t++)
        want("plain decoding, " types[i] ", " texts[t] " text: share of the copy bandwidth", "gpu-decode",
             "\"type\":\"" types[i] "\"&\"text\":\"" texts[t] "\"", "fraction", ">", goal_for[types[i]])
    for (i = 1; i <= 3; i++)
        want("8 rows over one row, " types[i], "gpu-rows", "\"type\":\"" types[i] "\"&\"rows\":8,", "median", "<", 1.2)
    for (i = 1; i <= 3; i++) for (t = 1; t <= 2; t++)
        for (n = 1; n <= split(types[i] == "bf16" ? "exact native fast" : "exact fast", plans, " "); n++)
            want("prompt, " types[i] ", " (t == 1 ? 512 : 4096) " tokens, " plans[n] " plan: tok/s", "gpu-prefill",
                 "\"type\":\"" types[i] "\"&\"plan\":\"" plans[n] "\"&\"text\":\"" texts[t] "\"", "median", "", 0)
    for (i = 1; i <= 3; i++) for (t = 1; t <= 2; t++)
        want("gaps, " types[i] ", graphs " (t == 1 ? "on" : "off") ": share of a step", "gpu-gaps",
             "\"type\":\"" types[i] "\"&\"graphs\":\"" (t == 1 ? "on" : "off") "\"", "median", "", 0)
    for (n = 1; n <= 64; n *= 2) want(n " sequences together: tok/s", "gpu-batch", "\"batch\":" n ",", "median", "", 0)
    split("8b 70b", sizes, " "); split("0.89 0.8", agrees, " ")
    n = split("in turn, draft on the GPU;ahead, two streams;ahead, parts of the GPU;ahead, draft on the cores;in turn, draft on the cores", ways, ";")
    for (s = 1; s <= 2; s++) for (a = 1; a <= 2; a++) for (t = 0; t <= 1; t++) for (w = 1; w <= n; w++)
        want("speculation, " sizes[s] ", agreement " agrees[a] ", temperature " t ", " ways[w] ": times plain", "gpu-pairs",
             "\"size\":\"" sizes[s] "\"&\"agree\":" agrees[a] ",&\"temperature\":" t ",&\"way\":\"" ways[w] "\"", "median", ">", 1)
}
function has(which,    parts, n, i) {
    n = split(which, parts, "&")
    for (i = 1; i <= n; i++) if (!index($0, parts[i])) return 0
    return 1
}
function take_goal(    list, n, i) {
    n = split(places[field("bench")], list, " ")
    for (i = 1; i <= n; i++) if (has(case_of[list[i]])) {
        value[list[i]] = field(field_of[list[i]])
        spread[list[i]] = field_of[list[i]] == "median" ? field("min") " ... " field("max") : ""
    }
}
function verdict(i,    by) {
    if (value[i] == "" || value[i] == "null") return "not run"
    if (sense_of[i] == "") return "no goal"
    by = (value[i] - goal_of[i]) / goal_of[i] * 100
    if (sense_of[i] == "<") by = -by
    return by >= 0 ? sprintf("met, %.0f %% to spare", by) : sprintf("missed by %.0f %%", -by)
}
# Of lines that say 1, 0 or null: how many of how many.
function exact_row(name, bench) {
    if (!n_said[bench]) return sprintf("| %s | | all | not run |", name)
    return sprintf("| %s | %d of %d | all | %s |", name, n_right[bench], n_said[bench],
                   n_right[bench] == n_said[bench] ? "met" : sprintf("missed by %d", n_said[bench] - n_right[bench]))
}
function put_goals(    i) {
    print "\n## Goals\n\n| figure | measured | goal | verdict |\n|---|---|---|---|"
    print exact_row("kernels with the scalar code's bits", "gpu-parity")
    print exact_row("texts from the CPU's logits", "gpu-text")
    print exact_row("runs of sanitizers that found nothing", "gpu-sanitizer")
    for (i = 1; i <= n_wanted; i++)
        printf "| %s | %s | %s | %s |\n", wanted[i], value[i] == "null" ? "" : value[i] (spread[i] == "" ? "" : " (" spread[i] ")"),
               sense_of[i] == "" ? "" : (sense_of[i] == ">" ? "at least " : "at most ") goal_of[i], verdict(i)
}

# ---- stages ----
function put_stages(    names, n, i) {
    print "\n## Stages\n\n| stage | seconds | what came of it |\n|---|---|---|"
    n = split(stages, names, " ")
    for (i = 1; i <= n; i++)
        printf "| %s | %s | %s |\n", names[i], seconds[names[i]], names[i] in said ? said[names[i]] : "not run: not asked for, or the run ended before it"
    if ("run" in said) printf "| run | | %s |\n", said["run"]
}

BEGIN { want_all() }
{ bench = field("bench"); take_goal() }
bench == "gpu-stage" {
    said[field("stage")] = (field("state") == "failed" ? "FAILED: " : "") field("options")
    seconds[field("stage")] = field("seconds")
    next
}
bench == "gpu-parity" || bench == "gpu-text" || bench == "gpu-sanitizer" {
    if (field("value") != "null") { n_said[bench]++; n_right[bench] += field("value") }
    if (bench == "gpu-parity") next
    rows[bench] = rows[bench] sprintf("| %s | %s | %s |\n", of_case(), field("value") == "null" ? "not run" : field("value") ? "yes" : "NO", field("options"))
    if (!(bench in known)) { known[bench]; order[++n_kinds] = bench; heads[bench] = "| case | " field("unit") " | |\n|---|---|---|" }
    next
}
{
    if (!(bench in known)) {
        known[bench]; order[++n_kinds] = bench
        heads[bench] = "| case | median | least ... most | n | unit | of its bound |\n|---|---|---|---|---|---|"
    }
    fraction = field("fraction")
    rows[bench] = rows[bench] sprintf("| %s | %s | %s ... %s | %s | %s | %s |\n", of_case(), field("median"), field("min"),
                                      field("max"), field("n"), field("unit"), fraction == "null" ? "" : fraction)
}
END {
    put_goals()
    put_stages()
    for (i = 1; i <= n_kinds; i++) printf "\n## %s\n\n%s\n%s", order[i], heads[order[i]], rows[order[i]]
}

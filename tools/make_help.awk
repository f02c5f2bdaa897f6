# Prints the contents page of a Makefile: `##@ Title` opens a section, `target: ... ## text` fills it.
BEGIN { print "make TARGET [VARIABLE=value]" }
/^##@ / { printf "\n%s\n", substr($0, 5); next }
/^[a-z-]+:.*## / {
    target = $0; sub(/:.*/, "", target)
    text = $0; sub(/^.*## /, "", text)
    printf "  %-14s %s\n", target, text
}
END {
    print "\nVariables"
    print "  SAN=address|undefined|thread   a sanitizer build, in build/<SAN>/"
    print "  DEBUG=1                        no optimisation, in build/debug/"
    print "  WERROR=1 or CI=true            warnings are errors"
    print "  CC, CFLAGS, PREFIX, DESTDIR    as usual"
}

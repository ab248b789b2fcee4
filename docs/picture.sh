#!/bin/sh
# picture.sh PAGE: the first plot of a page that `pgwake bench --html PAGE` wrote, as an SVG that stands
# alone. Takes the page's colours, light and dark, and puts the plot's title and its legend above it.
set -eu

awk '
    # The rules for colours, and those for what is in a plot.
    /^:root/, /^}/ { style = style $0 "\n" }
    /prefers-color-scheme: dark/, /^}/ { style = style $0 "\n" }
    /^svg [.t]/ || /^\.s[0-9]/ { style = style $0 "\n" }

    /<h3>/ && !title { split($0, parts, /<\/?h3>/); title = parts[2] }
    /class="legend"/ && !legend {
        entries = split($0, parts, "<li>")
        for (i = 2; i <= entries; i++) {
            match(parts[i], /s[0-9]/); class = substr(parts[i], RSTART, 2)
            name = parts[i]; sub(/.*<\/svg>/, "", name); sub(/<.*/, "", name)
            x = 66 + (i - 2) * 200
            legend = legend sprintf("<path class=\"line %s\" d=\"M%d -14H%d\"/>", class, x, x + 42)
            legend = legend sprintf("<text class=\"name\" x=\"%d\" y=\"-10\">%s</text>\n", x + 50, name)
        }
    }
    /^<svg viewBox="0 0 960 300"/ && !plot { is_inside = 1; plot = $0 "\n"; next }
    is_inside { plot = plot $0 "\n" }
    /^<\/svg>/ { is_inside = 0 }

    END {
        if (!plot) { print "picture.sh: this page has no plot" >"/dev/stderr"; exit 1 }
        svg = "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"-8 -64 986 372\""
        sub(/<svg viewBox="0 0 960 300"/, svg, plot)
        head = "<style>\n" style ".card { fill: var(--card); stroke: var(--line); }\n" \
            "svg text { font-family: system-ui, \"Segoe UI\", Roboto, \"DejaVu Sans\", sans-serif; }\n" \
            "svg .title { fill: var(--text); font-size: 16px; font-weight: 600; }\n" \
            "svg .name { fill: var(--text); font-size: 14px; }\n</style>\n" \
            "<rect class=\"card\" x=\"-7.5\" y=\"-63.5\" width=\"985\" height=\"371\" rx=\"10\"/>\n" \
            "<text class=\"title\" x=\"66\" y=\"-34\">" title "</text>\n" legend
        cut = index(plot, "\n")
        printf "%s%s%s", substr(plot, 1, cut), head, substr(plot, cut + 1)
    }' "$1"

// template.cpp checks the source of a chat template and answers its questions about the time.
#include "template.h"

#include "budget.h"

#include "jinja/lexer.h"
#include "jinja/parser.h"

#include <ctime>
#include <unordered_map>

namespace {

using jinja::token;

[[noreturn]] void refuse(const std::string & text) { throw nr_coded(NR_TEMPLATE, text); }

// nesting follows brackets inside a block, and blocks inside blocks.
struct nesting {
    int32_t brackets = 0;
    int32_t blocks = 0;
    int32_t tokens = 0; // of this block

    void see(const token & t) {
        switch (t.t) {
        case token::open_statement:
        case token::open_expression:
            brackets = tokens = 0;
            break;
        case token::open_paren:
        case token::open_square_bracket:
        case token::open_curly_bracket:
            brackets++;
            break;
        case token::close_paren:
        case token::close_square_bracket:
        case token::close_curly_bracket:
            brackets--;
            break;
        default:
            break;
        }
        tokens++;
        if (brackets > nr_template_nesting || blocks > nr_template_nesting) {
            refuse("it nests more than " + std::to_string(nr_template_nesting) + " levels");
        }
        if (tokens > nr_template_block) {
            refuse("a block has more than " + std::to_string(nr_template_block) + " tokens");
        }
    }

    // enter follows the first word of a statement. An elif is parsed as an if in an else.
    void enter(const std::string & word) {
        static const std::unordered_map<std::string, int32_t> steps = {
            {"if", 1},     {"elif", 1},  {"for", 1},     {"macro", 1},    {"call", 1},
            {"filter", 1}, {"endif", 0}, {"endfor", -1}, {"endmacro", -1}, {"endcall", -1},
            {"endfilter", -1},
        };
        if (word == "if") {
            ifs.push_back(0);
        } else if (word == "elif" && !ifs.empty()) {
            ifs.back()++;
        } else if (word == "endif" && !ifs.empty()) {
            blocks -= 1 + ifs.back();
            ifs.pop_back();
        }
        auto step = steps.find(word);
        blocks += step == steps.end() ? 0 : step->second;
    }

    std::vector<int32_t> ifs; // elifs of each open if
};

} // namespace

void nr_check_template(const std::string & source) {
    if (source.size() > nr_template_bytes) {
        refuse("it has more than " + std::to_string(nr_template_bytes) + " bytes");
    }
    jinja::lexer lexer;
    jinja::lexer_result result = lexer.tokenize(source);
    nesting n;
    for (size_t i = 0; i < result.tokens.size(); i++) {
        const token & t = result.tokens[i];
        bool first = i > 0 && result.tokens[i - 1].t == token::open_statement;
        if (first && t.t == token::identifier) {
            n.enter(t.value);
        }
        n.see(t);
    }
    jinja::parse_from_tokens(result);
}

nr_timed_template nr_with_time(const std::string & source) {
    static const std::string call = "strftime_now(";
    nr_timed_template out = {source, {}};
    for (size_t at = source.find(call); at != std::string::npos; at = source.find(call, at)) {
        at += call.size();
        size_t open = source.find_first_not_of(" \t\n", at);
        if (open == std::string::npos || (source[open] != '"' && source[open] != '\'')) {
            return {source, {}}; // a computed format: the engine's own clock answers
        }
        size_t close = source.find(source[open], open + 1);
        if (close == std::string::npos) {
            return {source, {}}; // the parser will say so
        }
        out.formats.push_back(source.substr(open + 1, close - open - 1));
    }
    if (!out.formats.empty()) {
        // The empty expression keeps the text's first newline. Blanks before a first block would
        // have been dropped, as they start a line.
        size_t start = source.find_first_not_of(" \t");
        bool block = source.compare(start, 2, "{%") == 0 || source.compare(start, 2, "{#") == 0;
        out.source = "{% macro strftime_now(format) %}{{ norion_time[format] }}{% endmacro %}"
                     "{{ '' }}" +
                     source.substr(block ? start : 0);
    }
    return out;
}

std::string nr_format_time(const std::string & format, int64_t seconds, int64_t offset) {
    std::time_t t = static_cast<std::time_t>(seconds + offset);
    std::tm parts = {};
    gmtime_r(&t, &parts);
    char buf[256];
    return std::string(buf, std::strftime(buf, sizeof(buf), format.c_str(), &parts));
}

std::string nr_template_reason(const std::string & what) {
    const std::string mark = "\nError: ";
    size_t at = what.rfind(mark);
    std::string reason = at == std::string::npos ? what : what.substr(at + mark.size());
    size_t line = what.find(" at line ");
    if (at != std::string::npos && line != std::string::npos) {
        size_t end = what.find(" in source", line);
        reason += " (" + what.substr(line + 1, end - line - 1) + ")";
    }
    return reason;
}

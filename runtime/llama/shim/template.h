// template.h prepares the source of a chat template for upstream's engine.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

// Bounds of a template's text. Upstream's parser and interpreter recurse once per level, and once
// per operator of a chain.
constexpr size_t nr_template_bytes = size_t{1} << 20;
constexpr int32_t nr_template_nesting = 200;   // brackets, and blocks in blocks, and elif chains
constexpr int32_t nr_template_block = 4096;    // tokens between {{ and }} or {% and %}

// nr_check_template throws where the text does not parse or is outside the bounds.
void nr_check_template(const std::string & source);

// A template that asks for the time. Upstream's engine reads the clock itself; a macro of the
// function's name, put before the text, takes the answers from the variable norion_time.
struct nr_timed_template {
    std::string source;               // as given, or with the macro before it
    std::vector<std::string> formats; // of strftime, as the template spells them
};
nr_timed_template nr_with_time(const std::string & source);

// nr_format_time is strftime for a moment: seconds since 1970 in UTC, and the zone's offset.
std::string nr_format_time(const std::string & format, int64_t seconds, int64_t offset);

// nr_template_reason shortens the text of an exception of the engine: the reason, then the place.
std::string nr_template_reason(const std::string & what);

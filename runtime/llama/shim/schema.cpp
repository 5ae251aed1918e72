// schema.cpp turns JSON schemas into grammars.
#include "norion_chat.h"

#include "budget.h"

#include "json-schema-to-grammar.h"
#include "json.h"

nr_text nr_schema_grammar(const char * schema, size_t size, nr_error * err) {
    nr_text out = {nullptr, 0};
    nr_bounded(err, NR_GRAMMAR, [&] {
        common_json document = common_json::parse(std::string(schema, size));
        out = nr_make_text(json_schema_to_grammar(document, /* force_gbnf= */ true));
    });
    return out;
}

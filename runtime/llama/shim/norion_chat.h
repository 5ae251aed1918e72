// norion_chat.h is the chat part of the shim: templates, tools, reasoning, schemas. Requests and
// results are JSON, one text each way; chat.go names every field. Conventions as in norion.h.
//
// Everything here runs on texts that strangers wrote, so each call is bounded (see budget.h).
#pragma once

#include "norion.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct nr_chat nr_chat;

// Reads a chat template: the given text, or the model's own where size is 0. bos and eos, each
// NUL-ended, are used where model is NULL. nr_chat_free frees it, before its model.
NR_API nr_chat * nr_chat_new(const nr_model * model, const char * text, size_t size,
                             const char * bos, const char * eos, nr_error * err);
NR_API void nr_chat_free(nr_chat * chat);
NR_API nr_text nr_chat_info(const nr_chat * chat, nr_error * err);

// Renders a request. The handle is not changed.
NR_API nr_text nr_chat_render(const nr_chat * chat, const char * request, size_t size,
                              nr_error * err);

// A parser of answers, made from what nr_chat_render said. nr_parser_free frees it.
typedef struct nr_parser nr_parser;
NR_API nr_parser * nr_parser_new(const char * spec, size_t size, nr_error * err);
NR_API void nr_parser_free(nr_parser * parser);
// Parses the whole text so far; partial says that more may follow.
NR_API nr_text nr_parser_parse(const nr_parser * parser, const char * text, size_t size,
                               bool partial, nr_error * err);

// A GBNF grammar of the JSON documents that a schema allows.
NR_API nr_text nr_schema_grammar(const char * schema, size_t size, nr_error * err);

// The chat templates that ship with the pinned sources, by file name, in order. The texts live as
// long as the process.
typedef struct nr_template {
    const char * name;
    const char * text;
    size_t size;
} nr_template;
NR_API int32_t nr_template_count(void);
NR_API nr_template nr_template_get(int32_t i);

#ifdef __cplusplus
}
#endif

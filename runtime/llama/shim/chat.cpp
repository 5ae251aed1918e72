// chat.cpp renders conversations with a model's chat template and reads its answers back.
#include "norion_chat.h"

#include "budget.h"
#include "template.h"

#include "chat.h"
#include "json.h"

using json = common_json;

namespace {

// One template, prepared. tmpls is upstream's; it allocates within the budget of nr_chat_new.
struct prepared {
    std::string source;
    std::vector<std::string> formats;
    common_chat_templates_ptr tmpls;
};

} // namespace

struct nr_chat {
    prepared main;
    prepared tools; // a variant for requests with tools; tmpls is NULL where there is none
    bool is_explicit = false;
    bool thinking = false;
    std::string thinking_start;
    std::vector<std::string> thinking_ends;
};

struct nr_parser {
    common_chat_parser_params params;
};

namespace {

// chatml is the name upstream gives to the template it falls back to.
constexpr const char * chatml = "chatml";

prepared prepare(const nr_model * model, const std::string & source, const char * bos,
                 const char * eos) {
    prepared out;
    out.source = source;
    std::string text = source;
    if (source != chatml) {
        nr_check_template(source);
        nr_timed_template timed = nr_with_time(source);
        text = timed.source;
        out.formats = timed.formats;
    }
    out.tmpls = common_chat_templates_init(model == nullptr ? nullptr : model->model, text, bos,
                                           eos);
    if (source == chatml) {
        out.source = common_chat_templates_source(out.tmpls.get());
    }
    return out;
}

// own returns a template of the model's metadata, or "".
std::string own(const nr_model * model, const char * name) {
    const char * text = llama_model_chat_template(model->model, name);
    return text == nullptr ? "" : text;
}

common_chat_templates_inputs greeting() {
    common_chat_templates_inputs in;
    common_chat_msg msg;
    msg.role = "user";
    msg.content = "test";
    in.messages = {msg};
    in.reasoning_format = COMMON_REASONING_FORMAT_DEEPSEEK;
    return in;
}

void open(nr_chat & chat, const nr_model * model, const std::string & text, const char * bos,
          const char * eos) {
    std::string source = text;
    std::string tools;
    if (text.empty() && model != nullptr) {
        source = own(model, nullptr);
        tools = own(model, "tool_use");
    }
    chat.is_explicit = !source.empty() || !tools.empty();
    if (source.empty()) {
        source = tools.empty() ? chatml : tools;
    }
    chat.main = prepare(model, source, bos, eos);
    if (!tools.empty()) {
        chat.tools = prepare(model, tools, bos, eos);
    }
    try {
        common_chat_params p = common_chat_templates_apply(chat.main.tmpls.get(), greeting());
        chat.thinking = p.supports_thinking;
        chat.thinking_start = p.thinking_start_tag;
        chat.thinking_ends = p.thinking_end_tags;
    } catch (const std::bad_alloc &) {
        throw;
    } catch (const std::exception &) {
        chat.thinking = false; // a template may refuse a lone user message
    }
}

nr_text text_of(const json & j) { return nr_make_text(j.dump()); }

common_chat_continuation continuation(const std::string & name) {
    if (name == "auto") {
        return COMMON_CHAT_CONTINUATION_AUTO;
    }
    if (name == "content") {
        return COMMON_CHAT_CONTINUATION_CONTENT;
    }
    return name == "reasoning" ? COMMON_CHAT_CONTINUATION_REASONING
                               : COMMON_CHAT_CONTINUATION_NONE;
}

// add_time gives the template the request's moment in place of the clock's.
void add_time(const json & request, const prepared & t, common_chat_templates_inputs & in) {
    if (!request.contains("now")) {
        return;
    }
    int64_t now = request.at("now").get<int64_t>();
    int64_t offset = request.value("utc_offset", int64_t{0});
    auto & args = in.chat_template_kwargs;
    // Formats of upstream's own variables of these names.
    args.emplace("datetime", json(nr_format_time("%b %d %Y", now, offset)).dump());
    args.emplace("date_string", json(nr_format_time("%d %b %Y", now, offset)).dump());
    json times = json::object();
    for (const std::string & format : t.formats) {
        times[format] = nr_format_time(format, now, offset);
    }
    if (!t.formats.empty()) {
        args["norion_time"] = times.dump();
    }
}

common_chat_templates_inputs read_request(const json & request, bool thinking) {
    common_chat_templates_inputs in;
    in.messages = common_chat_msgs_parse_oaicompat(request.at("messages"));
    if (request.contains("tools")) {
        in.tools = common_chat_tools_parse_oaicompat(request.at("tools"));
    }
    in.tool_choice =
        common_chat_tool_choice_parse_oaicompat(request.value("tool_choice", std::string("auto")));
    in.parallel_tool_calls = request.value("parallel_tool_calls", false);
    if (request.contains("json_schema")) {
        in.json_schema = request.at("json_schema").dump();
    }
    in.continue_final_message = continuation(request.value("continue", std::string()));
    in.add_generation_prompt = in.continue_final_message == COMMON_CHAT_CONTINUATION_NONE &&
                               request.value("add_generation_prompt", true);
    in.reasoning_format = common_reasoning_format_from_name(
        request.value("reasoning_format", std::string("deepseek")));
    in.enable_thinking = request.value("enable_thinking", thinking);
    if (request.contains("kwargs")) {
        for (const auto & item : request.at("kwargs").items()) {
            in.chat_template_kwargs[item.key()] = item.value().dump();
        }
    }
    // Upstream's programs have this default: earlier answers keep the text they had, so that their
    // cached prefix stays valid.
    in.chat_template_kwargs.emplace("preserve_reasoning", "true");
    return in;
}

json triggers_of(const common_chat_params & p) {
    json out = json::array();
    for (const auto & t : p.grammar_triggers) {
        json item = json::object();
        item["type"] = static_cast<int32_t>(t.type);
        item["value"] = t.value;
        item["token"] = static_cast<int32_t>(t.token);
        out.push_back(item);
    }
    return out;
}

json answer(const common_chat_params & p, const common_chat_templates_inputs & in) {
    json out = json::object();
    out["prompt"] = p.prompt;
    out["grammar"] = p.grammar;
    out["grammar_lazy"] = p.grammar_lazy;
    out["triggers"] = triggers_of(p);
    out["preserved_tokens"] = json(p.preserved_tokens);
    out["stops"] = json(p.additional_stops);
    out["generation_prompt"] = p.generation_prompt;
    out["thinking"] = p.supports_thinking;
    out["thinking_start"] = p.thinking_start_tag;
    out["thinking_ends"] = json(p.thinking_end_tags);
    json parser = json::object();
    parser["format"] = static_cast<int32_t>(p.format);
    parser["generation_prompt"] = p.generation_prompt;
    parser["reasoning_format"] = common_reasoning_format_name(in.reasoning_format);
    parser["continuation"] = in.continue_final_message != COMMON_CHAT_CONTINUATION_NONE;
    parser["parser"] = p.parser;
    out["parser"] = parser.dump();
    out["format"] = common_chat_format_name(p.format);
    return out;
}

json message_json(const common_chat_msg & msg) {
    json out = json::object();
    std::string content = msg.content;
    for (const auto & part : msg.content_parts) {
        content += part.text;
    }
    out["content"] = content;
    out["reasoning_content"] = msg.reasoning_content;
    out["tool_calls"] = json::array();
    for (const auto & call : msg.tool_calls) {
        json item = json::object();
        item["id"] = call.id;
        item["name"] = call.name;
        item["arguments"] = call.arguments;
        out["tool_calls"].push_back(item);
    }
    return out;
}

// in_template names the reason of a template's failure; other errors keep their own text.
template <typename F> void in_template(F && fn) {
    try {
        fn();
    } catch (const std::bad_alloc &) {
        throw;
    } catch (const nr_coded &) {
        throw;
    } catch (const std::exception & e) {
        throw nr_coded(NR_TEMPLATE, nr_template_reason(e.what()));
    }
}

} // namespace

nr_chat * nr_chat_new(const nr_model * model, const char * text, size_t size, const char * bos,
                      const char * eos, nr_error * err) {
    auto * chat = new (std::nothrow) nr_chat();
    bool ok = chat != nullptr && nr_bounded(err, NR_TEMPLATE, [&] {
        in_template([&] { open(*chat, model, std::string(text, size), bos, eos); });
    });
    if (!ok) {
        delete chat;
        return nullptr;
    }
    return chat;
}

void nr_chat_free(nr_chat * chat) { delete chat; }

nr_text nr_chat_info(const nr_chat * chat, nr_error * err) {
    return nr_guard<nr_text>(err, NR_INTERNAL, {nullptr, 0}, [&] {
        const prepared & main = chat->main;
        const prepared & best = chat->tools.tmpls ? chat->tools : main;
        json out = json::object();
        out["explicit"] = chat->is_explicit;
        out["source"] = main.source;
        out["tools_source"] = chat->tools.source;
        out["caps"] = json(common_chat_templates_get_caps(best.tmpls.get()));
        out["thinking"] = chat->thinking;
        out["thinking_start"] = chat->thinking_start;
        out["thinking_ends"] = json(chat->thinking_ends);
        return text_of(out);
    });
}

nr_text nr_chat_render(const nr_chat * chat, const char * request, size_t size, nr_error * err) {
    nr_text out = {nullptr, 0};
    nr_bounded(err, NR_INVALID, [&] {
        json r = json::parse(std::string(request, size));
        common_chat_templates_inputs in = read_request(r, chat->thinking);
        const prepared & t =
            !in.tools.empty() && chat->tools.tmpls ? chat->tools : chat->main;
        add_time(r, t, in);
        in_template([&] {
            out = text_of(answer(common_chat_templates_apply(t.tmpls.get(), in), in));
        });
    });
    return out;
}

nr_parser * nr_parser_new(const char * spec, size_t size, nr_error * err) {
    auto * parser = new (std::nothrow) nr_parser();
    bool ok = parser != nullptr && nr_bounded(err, NR_INVALID, [&] {
        json s = json::parse(std::string(spec, size));
        common_chat_parser_params & p = parser->params;
        p.format = static_cast<common_chat_format>(s.at("format").get<int32_t>());
        p.generation_prompt = s.at("generation_prompt").get<std::string>();
        p.reasoning_format =
            common_reasoning_format_from_name(s.at("reasoning_format").get<std::string>());
        p.is_continuation = s.at("continuation").get<bool>();
        std::string arena = s.at("parser").get<std::string>();
        if (!arena.empty()) {
            p.parser.load(arena);
        }
    });
    if (!ok) {
        delete parser;
        return nullptr;
    }
    return parser;
}

void nr_parser_free(nr_parser * parser) { delete parser; }

nr_text nr_parser_parse(const nr_parser * parser, const char * text, size_t size, bool partial,
                        nr_error * err) {
    nr_text out = {nullptr, 0};
    nr_bounded(err, NR_PARSE, [&] {
        common_chat_msg msg =
            common_chat_parse(std::string(text, size), partial, parser->params);
        out = text_of(message_json(msg));
    });
    return out;
}

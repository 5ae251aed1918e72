// process.cpp holds what belongs to the process as a whole: back-ends, devices and the log.
#include "internal.h"

#include "build-info.h"
#include "log.h"

#include <mutex>

#ifdef NORION_PLUGINS
#include <dlfcn.h>
#endif

// Implemented in Go. Both may be called from any thread.
extern "C" void norionLog(int32_t level, char * line, size_t size);

namespace {

std::atomic<int32_t> min_level{GGML_LOG_LEVEL_WARN};

// Upstream logs in pieces; a line belongs to the thread that writes it.
struct log_line {
    std::string text;
    int32_t level = GGML_LOG_LEVEL_INFO;
};
thread_local log_line pending;

void on_log(ggml_log_level level, const char * text, void *) {
    if (level != GGML_LOG_LEVEL_CONT) {
        pending.level = level;
    }
    if (pending.level < min_level.load(std::memory_order_relaxed)) {
        return;
    }
    pending.text += text;
    size_t end = 0;
    while ((end = pending.text.find('\n')) != std::string::npos) {
        pending.text[end] = '\0';
        if (end > 0) {
            norionLog(pending.level, &pending.text[0], end);
        }
        pending.text.erase(0, end + 1);
    }
}

void copy(char * to, size_t size, const char * from) {
    std::snprintf(to, size, "%s", from == nullptr ? "" : from);
}

// Back-ends that are plug-ins are loaded from the directory of libggml: beside the program, as
// installed. ggml_backend_load_all would look into the current directory, too, and run what lies
// there; so would a program that has no plug-ins.
void load_plugins() {
#ifdef NORION_PLUGINS
    Dl_info info = {};
    if (dladdr(dlsym(RTLD_DEFAULT, "ggml_backend_load_all"), &info) == 0) {
        return;
    }
    const std::string library = info.dli_fname;
    ggml_backend_load_all_from_path(library.substr(0, library.rfind('/') + 1).c_str());
#endif
}

} // namespace

void nr_start(int32_t level) {
    static std::once_flag once;
    min_level = level;
    std::call_once(once, [] {
        llama_log_set(on_log, nullptr);
        // The common library has a log of its own that writes to the terminal: keep it quiet.
        common_log_set_verbosity_thold(-1);
        common_log_pause(common_log_main());
        load_plugins();
        llama_backend_init();
    });
}

void nr_log_level(int32_t level) { min_level = level; }

void nr_distribute(void) {
    static std::once_flag once;
    std::call_once(once, [] { llama_numa_init(GGML_NUMA_STRATEGY_DISTRIBUTE); });
}

const char * nr_version(void) { return llama_version(); }

const char * nr_commit(void) { return llama_commit(); }

const char * nr_system_info(void) { return llama_print_system_info(); }

void nr_text_free(nr_text text) { std::free(text.data); }

int32_t nr_device_count(void) { return static_cast<int32_t>(ggml_backend_dev_count()); }

bool nr_device_get(int32_t i, nr_device * out) {
    if (i < 0 || i >= nr_device_count()) {
        return false;
    }
    ggml_backend_dev_props props = {};
    ggml_backend_dev_get_props(ggml_backend_dev_get(static_cast<size_t>(i)), &props);
    copy(out->name, sizeof(out->name), props.name);
    copy(out->description, sizeof(out->description), props.description);
    copy(out->id, sizeof(out->id), props.device_id);
    out->type = props.type;
    out->free = props.memory_free;
    out->total = props.memory_total;
    return true;
}

int32_t nr_type_from_name(const char * name) {
    for (int32_t i = 0; i < GGML_TYPE_COUNT; i++) {
        const char * known = ggml_type_name(static_cast<ggml_type>(i));
        if (known != nullptr && std::strcmp(known, name) == 0) {
            return i;
        }
    }
    return -1;
}

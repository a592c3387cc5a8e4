"""What `--help` and the tables of the command line say: by name, in Chinese and in English, as in the other parts."""

from __future__ import annotations

OF_COMMANDS: dict[str, tuple[str, str]] = {
    # cli/help_texts.py: what typer says itself, word for word in English
    "usage": ("用法：", "Usage: "),
    "options_metavar": ("[选项]", "[OPTIONS]"),
    "subcommand_metavar": ("命令 [参数]...", "COMMAND [ARGS]..."),
    "heading_arguments": ("参数", "Arguments"),
    "heading_options": ("选项", "Options"),
    "heading_commands": ("命令", "Commands"),
    "is_required": ("必填", "required"),
    "by_default": ("默认：{value}", "default: {value}"),
    "opt_help": ("显示这段说明，然后结束", "Show this message and exit."),
    "no_such_command_but": (
        "没有命令 {name}，是不是 {others}？",
        "No such command {name}. Did you mean {others}?",
    ),
    "no_such_command": ("没有命令 {name}", "No such command {name}."),
    "no_such_option_but": (
        "没有选项 {name}（也许是：{others}）",
        "No such option: {name} (Possible options: {others})",
    ),
    "no_such_option": ("没有选项 {name}", "No such option: {name}"),
    "missing_command": ("缺少命令", "Missing command."),
    "missing_argument": ("缺少参数 {name}", "Missing argument {name}."),
    "missing_option": ("缺少选项 {name}", "Missing option {name}."),
    "bad_value": ("{option} 的值不对：{why}", "Invalid value for {option}: {why}"),
    "not_one_of": ("{value} 不是 {choices} 之一", "{value} is not one of {choices}."),
    "extra_arguments": ("多余的参数：{names}", "Got unexpected extra argument(s) ({names})"),
    "option_needs_value": ("选项 {name} 后面要有一个值", "Option {name} requires an argument."),
    "option_takes_none": ("选项 {name} 后面不能有值", "Option {name} does not take a value."),
    "try_help": ("用 '{command} --help' 看怎样写", "Try '{command} --help' for help."),
    # cli/__init__.py: what the groups and commands do
    "does_all": ("一个小语言模型，做很多事。", "One small language model, many jobs."),
    "does_serve": (
        "用 gunicorn.conf.py 和 QAIO_* 设置启动 Gunicorn。",
        "Start Gunicorn with gunicorn.conf.py and the QAIO_* settings.",
    ),
    "does_ask": ("在这个进程里给一段文字加标签，并回复它。", "Label a text and answer it, in this process."),
    "does_check": (
        "运行任务的标准用例（prompts/<task>/cases.yaml），打印一张表。",
        "Run the gold cases of the tasks (prompts/<task>/cases.yaml) and print a table.",
    ),
    "does_eval": (
        "把回答与带标签的行比较：准确率、F1、混淆矩阵、用时、答错的行。",
        "Compare the answers to labelled rows with their labels: accuracy, F1, confusion matrix, times, wrong rows.",
    ),
    "does_calibrate": (
        "按带标签的行拟合温度，让概率等于这样的回答有多常是对的。",
        "Fit a temperature to labelled rows, so that a probability is how often such answers are right.",
    ),
    "does_tune": (
        "用带标签的行教模型一个任务的适配器（LoRA）。始终保留到目前为止最好的，按 Ctrl-C 也一样。",
        "Teach the model an adapter (LoRA) for one task, from labelled rows. The best so far is kept, even at Ctrl-C.",
    ),
    "does_tune_prompt": (
        "在带标签的行上试更少的例子、其他顺序、两种形式和其他指令，打印一张表。",
        "Try fewer examples, other orders, both forms and other instructions on labelled rows; print a table.",
    ),
    "does_feedback": (
        (
            "给反馈文件加标签：情感、意图、关键词、警报、建议的回复；并做成报告。\n\n"
            "Ctrl-C 停下，--resume 继续。做完后文件夹里有 labelled.csv、alerts.csv 和 report.html。"
        ),
        (
            "Label files of feedback: sentiment, intent, keywords, alarms, suggested replies; and make a report of "
            "them.\n\nCtrl-C stops it, --resume goes on. labelled.csv, alerts.csv and report.html are in the folder "
            "when it is done."
        ),
    ),
    "does_doctor": (
        "打印设置、模型文件、标签的 token、线程、计算内核和内存，以及值得改的。",
        "Print settings, model files, label tokens, threads, kernel and memory, and what to change.",
    ),
    "does_download": (
        ("从 hub 或 HF_ENDPOINT 里的镜像下载模型，并与 hub 所说的核对。\n\n中断了的从断开的地方继续。"),
        (
            "Fetch a model from the hub, or from the mirror in HF_ENDPOINT, and compare it with what the hub says of "
            "it.\n\nWhat was cut off goes on where it was."
        ),
    ),
    "does_keys": (
        "API 密钥：新建、列出、删除。服务会自己换上改动。",
        "API keys: new, list, remove. The service takes up changes by itself.",
    ),
    "does_keys_new": (
        "生成一个密钥，只打印这一次，并把它的哈希写进 QAIO_API_KEYS_FILE。",
        "Make a key, print it this once, and put its hash into QAIO_API_KEYS_FILE.",
    ),
    "does_keys_list": ("打印所有有密钥的名称。", "Print the names of all who have a key."),
    "does_keys_remove": (
        "从 QAIO_API_KEYS_FILE 里删除一个密钥；从下一个请求起它不再有效。",
        "Take a key out of QAIO_API_KEYS_FILE; from the next request on it does not hold.",
    ),
    "does_alerts": ("给人的报警：试发、列出、重发。", "Alerts to people: test, list, retry."),
    "does_alerts_test": (
        "检查 QAIO_ALERTS，并立即向每个渠道发一条测试消息，不经过待发的文件。",
        "Check QAIO_ALERTS, and send a test message to each channel, at once and past the outbox.",
    ),
    "does_alerts_list": (
        "列出在等待的报警和原因，以及已被放弃的。",
        "Show the alerts that wait, with why, and the dead ones: those that were given up.",
    ),
    "does_alerts_retry": (
        "让等待的和被放弃的报警现在到期，并发送：由运行中的服务发，没有服务就在这里发。",
        "Make waiting and dead alerts due now, and send them: with the running service, or here if there is none.",
    ),
    "does_corrections": ("人们对回答的意见：导出。", "What people said of answers: export."),
    "does_corrections_export": (
        "把人们对一个任务的回答的所有意见写成带标签的 CSV，从最早的开始，答对的也在内。",
        "Write all that people said of a task's answers as labelled CSV, oldest first, what was right included.",
    ),
    "does_prompts": ("提示词的版本：列出、试用、重新加载、退回。", "Versions of the prompts: list, try, reload, back."),
    "does_prompts_list": ("打印生效过的版本，从最新的开始。", "Print the versions that came into force, newest first."),
    "does_prompts_try": (
        (
            "运行自生效的版本以来所有改动的标准用例。如果重新加载会被拒绝，以 1 结束。\n\n"
            "打印每个改过的任务以前和现在答对的比例。"
        ),
        (
            "Run the gold cases of all that has changed since the version in force. Exits with 1 if a reload would be "
            "refused.\n\nPrints each changed task's share of right answers, before and now."
        ),
    ),
    "does_prompts_reload": (
        "让运行中的服务换上现在的 QAIO_PROMPTS，只要它不比生效的差。",
        "Have the running service take QAIO_PROMPTS as it is now, if it is not worse than what is in force.",
    ),
    "does_prompts_back": (
        "退回到以前生效的版本：QAIO_PROMPTS 恢复原样，服务重新加载。",
        "Go back to the version that was in force before: QAIO_PROMPTS becomes what it was, and the service reloads.",
    ),
    "opt_version": ("显示是哪一版", "Say which one"),
    # cli/terminal.py
    "opt_json": ("一个 JSON 对象，给程序用", "One object in JSON, for programs"),
    # cli/commands.py
    "arg_text": ("要说的话", "What to say"),
    "arg_checked_tasks": ("要检查的任务；不写就是全部", "Tasks to check; all if none is named"),
    "opt_wrong_cases": ("列出没有通过的用例", "List the cases that failed"),
    "opt_answer_seed": ("抽样回答的种子", "Seed of sampled answers"),
    "opt_least_share": (
        "如果有任务通过的比例比这小，以 1 结束；0 到 1",
        "Exit with 1 if a task passes a smaller share than this, from 0 to 1",
    ),
    "arg_hub_id": (
        "hub 上的名字，如 Qwen/Qwen1.5-0.5B；不写就是 QAIO_MODEL",
        "Hub id, as Qwen/Qwen1.5-0.5B; QAIO_MODEL if none is given",
    ),
    "opt_to": ("放文件的文件夹；不写就是 hub 的缓存", "Folder for its files; the hub's cache if none is given"),
    "opt_revision": (
        "分支、标签或提交；不写就是 QAIO_MODEL_REVISION",
        "Branch, tag or commit; QAIO_MODEL_REVISION if none is",
    ),
    # cli/key_commands.py
    "arg_new_key": ("谁的密钥；会出现在日志里", "Whose key it is; appears in logs"),
    "arg_old_key": ("谁的密钥不再有效", "Whose key no longer holds"),
    # cli/alert_commands.py
    "arg_channels": ("渠道；不写就是全部", "Channels; all if none is named"),
    "arg_messages": (
        "消息，写法与 `list` 显示的一样；不写就是全部",
        "Messages, as `list` shows them; all if none is named",
    ),
    "opt_seconds": ("最多等这么多秒，直到发出", "Wait so long for them to be sent"),
    # cli/labelled_commands.py, correction_commands.py
    "arg_label_task": ("标签任务", "A label task"),
    "opt_data": (
        "带标签的 CSV，也可以用制表符或分号分隔，UTF-8，有表头",
        "Labelled CSV, or separated by tabs or semicolons; UTF-8, with a header",
    ),
    "opt_text_column": (
        "输入 `text` 的列；其他输入的列与输入同名",
        "Column of the input `text`; other inputs have their own names",
    ),
    "opt_label_column": ("正确标签的列", "Column of the right label"),
    "opt_map": (
        "把文件里的标签换成任务的：1=正面,0=负面",
        "The file's labels in the task's words: 1=正面,0=负面",
    ),
    "opt_limit": ("只取前 N 行；0：全部", "Only the first N rows; 0: all"),
    "opt_wrong_rows": (
        "答错的行写到哪里；只覆盖以前这样写出的文件",
        "Where the wrong rows go; of files that are there, only one of these is replaced",
    ),
    "opt_url": (
        "问这个运行中的服务，而不是这个进程里的模型",
        "Ask this running service, and not a model in this process",
    ),
    "opt_key_if_asked": (
        "放 API 密钥或令牌的文件，如果服务要求的话",
        "File with its API key or token, if it asks for one",
    ),
    "opt_least_accuracy": (
        "如果准确率比这低，以 1 结束；0 到 1",
        "Exit with 1 if the accuracy is less than this, from 0 to 1",
    ),
    "opt_corrections_out": ("行写到哪里", "Where the rows go"),
    # cli/tune_command.py
    "arg_taught_task": ("回答标签或文字的任务", "A task that answers with a label or a text"),
    "opt_base": (
        "要教的模型：文件夹或 hub 上的名字；不写就是 QAIO_MODEL",
        "The checkpoint to teach: a folder or a hub id; else QAIO_MODEL",
    ),
    "opt_adapter_out": ("适配器写到哪里；不写就是任务自己的文件夹", "Where the adapter goes; else the task's own"),
    "opt_held_out": (
        "用来测量的行，写法与 --data 一样；不写就是每五行取一行",
        "Rows to measure on, as --data; else every fifth row",
    ),
    "opt_rank": ("越大，能学的越多，忘的也越多", "More can be learnt with a higher one, and forgotten"),
    "opt_epochs": ("最多几轮；没有进步就结束", "At most; it ends where nothing is gained"),
    "opt_learning_rate": ("每一步改动多大", "How far each step goes"),
    "opt_row_seed": ("换一种行的顺序", "Another order of the rows"),
    "opt_replace": ("覆盖已有的适配器", "Write over the adapter that is there"),
    # cli/tune_prompt_command.py
    "opt_instruction": (
        "再试一条指令，比如用另一种语言写的；可以重复",
        "Another instruction to try, in another language for one; may be repeated",
    ),
    "opt_write": (
        "如果最好的确实更好，把它写进 prompt.md；旧的变成 prompt.md.bak",
        "Write the best, if it is better, into prompt.md; the old one becomes prompt.md.bak",
    ),
    # cli/prompt_commands.py
    "arg_version": (
        "一个保留的版本；不写就是现在的 QAIO_PROMPTS",
        "A version that is kept; QAIO_PROMPTS as it is if none is named",
    ),
    "opt_against": (
        "一个保留的版本；不写就是生效的那个",
        "A version that is kept; the one in force if none is named",
    ),
    "opt_force": ("不管标准用例怎样，都换上", "Take it whatever its gold cases say"),
    # cli/feedback_command.py
    "arg_files": (
        "CSV、TSV、JSONL、XLSX 或 Parquet 文件；也可以是 s3://...",
        "CSV, TSV, JSONL, XLSX or Parquet files; s3://... too",
    ),
    "opt_desk_out": ("放结果的文件夹", "Folder for what comes of it"),
    "opt_sample": ("用随软件包来的小文件", "Take the small file that comes with the package"),
    "opt_text": ("人们所说的话的列；不写就猜", "Column with what people say; guessed if not given"),
    "opt_date": ("日期的列；没有就写 -", "Column with the day; - for none"),
    "opt_product": ("商品或店铺的列；没有就写 -", "Column with the product or shop; - for none"),
    "opt_rating": ("星级的列；没有就写 -", "Column with the stars; - for none"),
    "opt_id": ("区分各行的列；没有就写 -", "Column that tells rows apart; - for none"),
    "opt_without": (
        "省去一个任务：intent、keywords、care 或 suggest",
        "Leave out a task: intent, keywords, care or suggest",
    ),
    "opt_sure": (
        "负面的行从这个概率起算警报",
        "A negative row is an alarm from this probability on",
    ),
    "opt_resume": ("继续文件夹里的那一次", "Go on with the run that is in the folder"),
    "opt_key": ("放它的 API 密钥或令牌的文件", "File with its API key or token"),
    "opt_engine": (
        "ray：Ray 集群的机器上的很多模型，或这台机器上的几个",
        "ray: many models on the machines of a Ray cluster, or several on this one",
    ),
    "opt_address": (
        "用 ray 时：集群，写 HOST:PORT 或 auto；不写就只用这台机器",
        "With ray: the cluster, as HOST:PORT or auto; not given: this machine alone",
    ),
    "opt_actors": (
        "用 ray 时：一共几个模型；0：CPU 够几个就几个",
        "With ray: models in all; 0: as many as there are CPUs for",
    ),
    "opt_actor_cpus": ("用 ray 时：每个模型用几个 CPU 计算", "With ray: CPUs that each model computes on"),
    # what commands say while they run, and of what came of it
    "loading": ("正在加载 {model}", "loading {model}"),
    "at_line": ("第 {line} 行：{problem}", "line {line}: {problem}"),
    "because": ("：{problem}", ": {problem}"),
    # cli/commands.py: download
    "hub_files": ("{name}（{revision}）：{count} 个文件，{size}", "{name} ({revision}): {count} files, {size}"),
    "hub_missing": ("要下载到 {place}：{size}", "to fetch into {place}: {size}"),
    "hub_compared": ("正在与 hub 核对", "comparing with the hub"),
    "hub_complete": (
        "已完整：QAIO_MODEL={model} qwen-allinone serve",
        "complete: QAIO_MODEL={model} qwen-allinone serve",
    ),
    # cli/commands.py: check
    "check_begins": ("要运行的标准用例：{cases} 条（任务：{tasks} 个）", "gold cases to run: {cases} (tasks: {tasks})"),
    "passed_of": ("{task} 通过 {cases} 条中的 {passed} 条", "{task} passed {passed} of {cases}"),
    "tasks_below": ("低于 --at-least {least}：{tasks}", "less than --at-least {least}: {tasks}"),
    # cli/key_commands.py, correction_commands.py
    "key_shown_once": (
        "这是 {name} 的密钥，只显示这一次；文件里只有它的哈希。",
        "The key of {name}. It is shown only now; the file holds its hash.",
    ),
    "corrections_in": (
        "{file} 里有 {count} 行，其中 {right} 行原来答对了",
        "{count} rows are in {file}, {right} of them were answered right",
    ),
    # cli/alert_commands.py
    "alerts_in_order": (
        "{rules} 条规则，{channels} 个渠道：文件没有问题",
        "{rules} rules, {channels} channels: the file is in order",
    ),
    "test_sent": ("{name}：已发出", "{name}: sent"),
    "test_not_sent": ("{name}：没有发出：{error}", "{name}: not sent: {error}"),
    "it_waits": ("在等待", "waiting"),
    "it_is_dead": ("已放弃", "dead"),
    "so_many_tries": ("试了 {count} 次{why}", "{count} tries{why}"),
    "alerts_by_state": (
        "{waiting} 条在等待，{dead} 条已放弃，{sent} 条已发出",
        "{waiting} waiting, {dead} dead, {sent} sent",
    ),
    "alerts_due": ("{count} 条已到期，{left} 条还在等待", "{count} due, {left} still waiting"),
    # cli/labelled_commands.py, asking.py, labelled_rows.py
    "wrong_rows_in": ("{file} 里有 {count} 行答错的", "{count} wrong rows are in {file}"),
    "accuracy_below": (
        "准确率 {accuracy}（{rows} 行中对 {right} 行），低于 --at-least {least}",
        "accuracy {accuracy} ({right} of {rows} rows right), less than --at-least {least}",
    ),
    "calibration_kept": (
        "已存到 {file}：从下次启动起有效",
        "kept in {file}: it holds from the next start on",
    ),
    "rows_unusable": ("{file} 有 {count} 行不能用", "{count} rows of {file} that cannot be used"),
    "rows_unanswered": ("{count} 行没有得到回答", "{count} rows that were not answered"),
    "answer_of_another_task": (
        "答案不是这个任务的（{name}：{error}）",
        "the answer is not one of this task ({name}: {error})",
    ),
    "cells_differ": ("有 {count} 格，表头有 {width} 格", "{count} cells where the header has {width}"),
    "cell_empty": ("{name} 是空的", "{name} is empty"),
    "label_unknown": (
        "标签 {label!r} 不是 {allowed} 之一；可以用 --map 换成任务的标签",
        "the label {label!r} is none of {allowed}; --map translates labels",
    ),
    "no_valid_csv": ("不是合法的 CSV（{error}）", "no valid CSV ({error})"),
    # cli/tune_command.py, tune_prompt_command.py
    "rows_to_learn": ("{count} 行用来学习，{unseen} 行用来测量", "{count} rows to learn from, {unseen} to measure on"),
    "rows_not_taken": ("{count} 行是任务不接受的", "{count} rows that the task does not take"),
    "above_context": ("比上下文的 {context} 个 token 长", "longer than the context of {context} tokens"),
    "measuring": ("正在测量原来的模型", "measuring the model as it is"),
    "right_now": ("测量：答对 {right}，损失 {loss}", "held out: {right} right, loss {loss}"),
    "loss_now": ("测量：损失 {loss}", "held out: loss {loss}"),
    "ended_early": ("提前结束", "ended early"),
    "adapter_kept": (
        "已存到 {folder}：从下次启动或重新加载起有效",
        "kept in {folder}: it holds from the next start or reload on",
    ),
    "ways_to_write": ("各种写法", "ways to write it"),
    "on_other_rows": (
        "在另外 {count} 行上：原来的 {before}，最好的 {after}",
        "on {count} other rows: {before} as it is, {after} the best",
    ),
    "best_no_better": (
        "prompt.md 保持原样：在没有用来挑选它的行上，最好的也没有更好",
        "prompt.md stays as it is: on rows that it was not chosen by, the best is no better",
    ),
    "prompt_stays": ("prompt.md 保持原样", "prompt.md stays as it is"),
    "prompt_written": (
        "已写入 {file}：从下次启动或重新加载起有效",
        "written to {file}: it holds from the next start or reload on",
    ),
    # cli/prompt_commands.py, prompt_trial.py
    "next_start_takes": (
        "提示词 {version}：这里没有运行中的服务，下次启动时换上",
        "prompts {version}: no service runs here, the next start takes it",
    ),
    "service_takes": (
        "提示词 {version}：服务（进程 {master}）会换上，日志里会写明什么时候",
        "prompts {version}: the service (process {master}) takes it; its log says when",
    ),
    "no_task_changed": ("有标准用例的任务都没有变", "no task with gold cases has changed"),
    "refused": ("拒绝：{problem}", "refused: {problem}"),
    "cases_lost": (
        "{task}：{cases} 条标准用例现在答对 {now}，以前是 {before}（QAIO_PROMPTS_MAY_LOSE={may_lose}）",
        ("{task}: {now} of its {cases} gold cases are right, {before} were before (QAIO_PROMPTS_MAY_LOSE={may_lose})"),
    ),
    "at_start": ("启动", "start"),
    "was_tried": ("试用通过", "tried"),
    "was_forced": ("强行换上", "forced"),
    "went_back": ("退回", "back"),
    # cli/feedback_command.py, feedback_crews.py, feedback_alerts.py
    "reading_files": ("正在读文件", "reading the files"),
    "writing_report": ("正在写报告", "writing the report"),
    "sending_alerts": ("正在发送报警", "sending alerts"),
    "alerts_left": (
        (
            "还有 {count} 条报警没能发出：运行中的服务或 qwen-allinone alerts retry 会发；"
            "原因见 qwen-allinone alerts list"
        ),
        (
            "{count} alerts could not be sent yet: a running service sends them, or qwen-allinone alerts retry; "
            "qwen-allinone alerts list says why"
        ),
    ),
    "joining": ("正在加入集群，并在那里加载 {model}", "joining the cluster and loading {model} there"),
    "models_on_machines": ("{machines} 台机器上有 {actors} 个模型", "{actors} models on {machines} machines"),
    "columns_chosen": ("所用的列（可以用这些选项另外指定）：", "columns (say otherwise with these flags):"),
    "no_column": ("（无）", "(none)"),
    "read_as": ("{name} 按 {encoding} 读取", "{name} is read as {encoding}"),
    "rows_found": ("{count} 行", "{count} rows"),
    "rows_unreadable": (
        "其中 {count} 行读不成一行；它们会保留，但没有标签",
        "{count} of them cannot be read as rows; they are kept without a label",
    ),
    "rows_again": ("{count} 行的编号前面已经有了", "{count} rows have a number that has been there before"),
    "row_told": ("{file}：第 {line} 行：{problem}", "{file}: line {line}: {problem}"),
    "number_again": (
        "第 {line} 行：第 {first} 行的 {name!r} 又出现了；两行都保留",
        "line {line}: the {name!r} of line {first} once more; both are kept",
    ),
    "rows_a_second": ("每秒 {speed} 行", "{speed} rows/s"),
    "time_left": ("后完成", "left"),
    "stopped": (
        "已停下：{rows} 行里做完并保存了 {done} 行；用 --resume 继续",
        "stopped: {done} of {rows} rows are done and kept; go on with --resume",
    ),
    "feedback_done": (
        "{rows} 行：正面 {positive}，负面 {negative}，没有标签 {unlabelled}；警报 {alarms}",
        "{rows} rows: {positive} positive, {negative} negative, {unlabelled} without a label; {alarms} alarms",
    ),
    "drafts_dropped": (
        "{count} 条拟的回复不断重复或没有写完，没有采用；见 {file}",
        "{count} drafted replies repeated themselves or were cut off, and were dropped; see {file}",
    ),
    "run_files": ("文件", "files"),
    "run_text_column": ("文字的列", "text column"),
    "run_model": ("模型", "model"),
    "run_tasks": ("任务", "tasks"),
    "run_made_of": ("权重或提示词", "weights or prompts"),
    # tables: headings of columns and titles
    "head_task": ("任务", "task"),
    "head_cases": ("用例", "cases"),
    "head_passed": ("通过", "passed"),
    "head_share": ("比例", "share"),
    "head_gold_cases": ("标准用例", "gold cases"),
    "head_figure": ("指标", "figure"),
    "head_value": ("值", "value"),
    "head_before": ("以前", "before"),
    "head_after": ("以后", "after"),
    "head_now": ("现在", "now"),
    "head_right_label": ("正确标签", "right label"),
    "head_answered": ("答 {answer}", "answered {answer}"),
    "head_confusion": ("混淆矩阵", "confusion matrix"),
    "head_on_file": ("{task}，用 {file}", "{task} on {file}"),
    "head_setting": ("设置", "setting"),
    "head_meaning": ("含义", "meaning"),
    "head_settings": ("设置（* 由你设置）", "settings (* set by you)"),
    "head_what": ("项目", "what"),
    "head_model": ("模型", "model"),
    "head_version": ("版本", "version"),
    "head_since": ("生效时间", "in force since"),
    "head_why": ("原因", "why"),
    "head_epoch": ("轮", "epoch"),
    "head_right": ("答对", "right"),
    "head_loss": ("损失", "loss"),
    "head_held_out": ("{task}，{count} 行用来测量", "{task}, {count} rows held out"),
    "head_minutes": ("{minutes} 分钟", "{minutes} minutes"),
    "head_instruction": ("指令", "instruction"),
    "head_examples": ("例子", "examples"),
    "head_order": ("顺序", "order"),
    "head_form": ("形式", "form"),
    "head_fitted": ("适应后", "fitted"),
    "head_rows_of_file": ("{task}，用 {file} 的 {count} 行", "{task} on {count} rows of {file}"),
    # tasks/variants.py: orders of the examples
    "as_written": ("按原样", "as written"),
    "backwards": ("倒过来", "backwards"),
    "in_turn": ("各种回答轮流", "in turn"),
    # tables: names of rows
    "row_rows": ("行数", "rows"),
    "row_accuracy": ("准确率", "accuracy"),
    "row_macro_f1": ("宏平均 F1", "macro F1"),
    "row_ece": ("ECE（15 个区间）", "ECE (15 bins)"),
    "row_f1": ("{label} 的 F1", "F1 of {label}"),
    "row_latency": ("用时 p{share}", "latency p{share}"),
    "row_speed": ("每秒行数", "rows a second"),
    "row_temperature": ("温度", "temperature"),
    "row_before": ("以前", "before"),
    "row_kept": ("保留", "kept"),
    "row_best": ("最好", "best"),
    "row_none": ("无", "none"),
    "row_plain": ("普通", "plain"),
    "row_chat": ("对话", "chat"),
    "row_folder": ("文件夹", "folder"),
    "row_layers": ("层数 x 隐藏维度，词表", "layers x hidden, vocabulary"),
    "row_heads": ("头（查询 / 键）", "heads (queries / keys)"),
    "row_kernel": ("计算内核，权重", "kernel, weights"),
    "row_drafts": ("草稿，一步多算一行的代价", "drafts, what a row more costs a step"),
    "drafts_off": ("关", "off"),
    "drafts_on": ("开", "on"),
    "row_stop_ids": ("停止 id", "stop ids"),
    "row_cores": ("可用的核，每个 worker 的线程", "cores available, threads a worker"),
    "row_memory": ("一个 worker 现在的常驻内存", "resident memory of one worker now"),
    "row_keys_and_values": ("键和值，最多 {count} 个 token", "keys and values, {count} tokens at most"),
    "row_tokens": ("{task}：{label} 的 token", "{task}: tokens of {label}"),
    "row_gold_cases": ("{task}：{count} 条标准用例答对", "{task}: right of {count} gold cases"),
    "row_fitted": ("{raw}，适应后：{fitted}", "{raw}, fitted: {fitted}"),
    # cli/tables.py: advice
    "nothing_to_change": ("没有要改的", "nothing to change"),
    "temperature_at_limit": (
        "温度到了极限：这些行说明不了模型该有多确定；请给更多",
        "the temperature is at its limit: these rows do not say how sure the model may be; give more",
    ),
    "too_many_threads": (
        "{workers} 个 worker x {threads} 个线程，超过了现有的 {cores} 个核",
        "{workers} workers x {threads} threads want more than the {cores} cores there are",
    ),
    "too_much_memory": (
        (
            "{workers} 个 worker 可能用到 {need} MiB，而只给了 {limit} MiB："
            "请调小 QAIO_KV_TOKENS 或 QAIO_WORKERS，或设置 QAIO_WEIGHTS=fp16（或 int8）"
        ),
        (
            "{workers} workers can come to {need} MiB, but {limit} MiB are granted: "
            "lower QAIO_KV_TOKENS or QAIO_WORKERS, or set QAIO_WEIGHTS=fp16 (or int8)"
        ),
    ),
    "plain_products": (
        "在这个 CPU 上用普通乘法：打包的计算内核在这里不能用，或者不更快",
        "plain products are used on this CPU: packed kernels fail here or are no faster",
    ),
    "only_guesses": (
        "{task} 在标准用例上不比猜的好：请重写提示词，或换一个模型",
        "{task} does no better than guessing on its gold cases: rewrite its prompt or take another model",
    ),
    "demo_stands_in": (
        "演示模型只是替代品；真正使用时，请把 QAIO_MODEL 设为 Qwen 的模型",
        "the demo model is a stand-in; set QAIO_MODEL to a Qwen checkpoint for real use",
    ),
}

// The words of the page in English and Chinese, and how numbers and times are written in each.

import * as clock from "./clock.js";

const TEXTS = {
  en: {
    tagline: "Live occupancy",
    skip_to_alerts: "Skip to alerts",
    language: "Language",
    summary: "At a glance",
    people_in_house: "People in the house",
    free_seats: "Free seats",
    open_alerts: "Open alerts",
    events_per_second: "Events per second",
    of_capacity: "of {capacity} · {share}",
    of_seats: "of {seats}",
    no_seats: "no seat sensors yet",
    alerts_critical: { one: "{n} critical", other: "{n} critical" },
    alerts_new: { one: "{n} to look at", other: "{n} to look at" },
    alerts_taken: "all taken care of",
    alerts_calm: "all calm",
    latency_note: "alerts within {ms}",
    zones: "Zones",
    order: "Order of zones",
    order_place: "By place",
    order_fullest: "Fullest first",
    other_areas: "Other areas",
    quiet: "Quiet",
    busy: "Busy",
    "very busy": "Very busy",
    unknown: "Unknown",
    of: "of {capacity}",
    people: { one: "person", other: "people" },
    near: "≈ {low}–{high}",
    likely: "Likely between {low} and {high} people",
    seats_free: { one: "{n} seat free", other: "{n} seats free" },
    stale: "No recent data",
    unlisted: "Not in site.toml",
    never: "no data yet",
    trend_up: { one: "{n} more than 15 minutes ago", other: "{n} more than 15 minutes ago" },
    trend_down: { one: "{n} fewer than 15 minutes ago", other: "{n} fewer than 15 minutes ago" },
    empty_title: "No zones yet",
    empty_text: "Zones appear here by themselves with the first event, or from site.toml. Send one to see it arrive:",
    waiting_title: "Waiting for the first event",
    waiting_text: "The zones are known, and no sensor has said anything yet. Send an event to see it arrive:",
    copy: "Copy",
    copied: "Copied",
    copy_by_hand: "Selected: press Ctrl+C to copy",
    load_failed: "The figures could not be read: {reason}. Trying again.",
    lost: "Connection lost, trying again. Figures are from {time}.",
    lost_plain: "Connection lost, trying again.",
    silent: "The engine has said nothing since {time}. Still listening.",
    back: "Connected again",
    health_waiting: "Connecting",
    health_ok: "Live, all well",
    health_degraded: "Live, needs attention",
    health_lost: "Connection lost",
    health_title: "How the engine is doing",
    messages_per_second: "Messages per second",
    alert_latency: "Alert latency, median",
    alert_latency_99: "Alert latency, 99th percentile",
    log_lag: "Log lag",
    refused: "Messages that could not be read",
    devices_silent: "Silent devices",
    sources: "Sources",
    no_sources: "None connected yet",
    connected: "connected",
    disconnected: "not connected",
    source_shed: { one: "{n} message dropped for want of room", other: "{n} messages dropped for want of room" },
    deliveries: "Deliveries",
    receivers_none: "Nobody is told yet",
    "breaker_closed": "delivering",
    "breaker_open": "away, tried again soon",
    "breaker_half-open": "being tried",
    receiver_waiting: { one: "{n} waiting", other: "{n} waiting" },
    waiting_since: " since {time}",
    receiver_sent: { one: "{n} delivered", other: "{n} delivered" },
    receiver_lost: { one: "{n} lost, too many waited", other: "{n} lost, too many waited" },
    receiver_dead: { one: "{n} not taken: show", other: "{n} not taken: show" },
    letters: "Not taken",
    letters_note: "What this receiver would not take. Once it is mended, send it again: each comes under its own id, so that nothing counts twice.",
    letters_none: "Nothing is left here.",
    letters_reading: "Reading …",
    letter_tries: { one: "tried {n} time", other: "tried {n} times" },
    letter_resent: "On its way again",
    resend: "Send again",
    resend_all: "Send all again",
    resent: { one: "{n} is on its way again", other: "{n} are on their way again" },
    parts: "Started again",
    part_running: "running, failed {times} times",
    part_waiting: "stopped, starts again soon; failed {times} times",
    replay: "replay at {speed}×",
    engine_clock: "engine clock",
    alerts: "Alerts",
    acting_as: "Acting as",
    nobody: "staff",
    none_open: "Nothing needs attention right now.",
    more_alerts: { one: "Show {n} more", other: "Show {n} more" },
    fewer_alerts: "Show fewer",
    not_shown: { one: "{n} more is not shown", other: "{n} more are not shown" },
    watched: { one: "Being watched ({n})", other: "Being watched ({n})" },
    watched_note: "Conditions that have begun and don't count yet.",
    quieted: { one: "Snoozed or suppressed ({n})", other: "Snoozed or suppressed ({n})" },
    cleared: { one: "Recently cleared ({n})", other: "Recently cleared ({n})" },
    critical: "Critical",
    warning: "Warning",
    info: "Info",
    state_pending: "Being watched",
    state_active: "Active",
    state_acknowledged: "Acknowledged",
    state_recovering: "Recovering",
    state_cleared: "Cleared",
    snoozed: "Snoozed",
    snoozed_until: "Snoozed until {time}",
    suppressed: "Suppressed",
    acknowledged_by: "Acknowledged by {by}",
    acknowledge: "Acknowledge",
    snooze: "Snooze 30 min",
    comment: "Comment",
    clear: "Clear",
    details: "Details",
    comment_label: "Comment on this alert",
    send: "Send",
    cancel: "Cancel",
    comments: "Comments",
    commented: "Comment saved",
    action_failed: "That did not work: {reason}",
    steps: "What happened",
    steps_reading: "Reading …",
    steps_none: "Nothing yet",
    steps_failed: "The steps could not be read: {reason}",
    steps_left_out: { one: "{n} step is no longer kept", other: "{n} steps are no longer kept" },
    what_pending: "Began", what_raised: "Raised", what_relapsed: "Back again", what_recovering: "Recovering",
    what_cleared: "Cleared", what_withdrawn: "Withdrawn", what_acknowledged: "Acknowledged", what_assigned: "Assigned to",
    what_commented: "Commented:", what_snoozed: "Snoozed", what_unsnoozed: "No longer snoozed", what_suppressed: "Held back:",
    what_unsuppressed: "No longer held back:", what_escalated: "Became graver:", what_regrouped: "Its group changed",
    why_rule: "the rule's condition", why_clock: "time passed", why_staff: "staff", why_inhibition: "another alert says as much",
    why_quiet: "quiet hours", why_calendar: "opening hours", why_no_data: "no measurements come", why_group: "the alerts of its group",
    why_configuration: "the rule was taken away",
    why_opted_out: "the person does not want to be known",
    held_quiet: "quiet hours", held_closed: "the house is closed", held_open: "the house is open", held_no_data: "no measurements",
    assigned_nobody: "nobody",
    until: "until {time}",
    rule: "Rule",
    state: "State",
    values: "Values",
    causes: "Caused by events",
    more_causes: { one: "and {n} more", other: "and {n} more" },
    no_causes: "no event: time passed without one",
    event_time: "Event time",
    raised_at: "Raised",
    stages: "From message to alert",
    stage_decoded: "read",
    stage_evaluated: "evaluated",
    stage_sent: "sent",
    announce_many: { one: "{n} new alert", other: "{n} new alerts" },
    kind_zone: "zone", kind_seat: "seat", kind_person: "reader", kind_item: "item", kind_device: "sensor", kind_usher: "Usher",
    close: "Close",
    history: "People over time",
    history_none: "No history yet. It builds up as events arrive.",
    history_summary: "{zone}: from {from} to {to}, between {low} and {high} people, now {now}",
    capacity: "Capacity",
    range: "Likely range",
    full: "Full",
    as_of: "As of",
    seats: "Seats",
    seat_occupied: "Occupied",
    seat_free: "Free",
    seat_away: "Away",
    seat_unknown: "Unknown",
    since: "since {time}",
    just_now: "just now",
    alerts_here: "Alerts here",
    unknown_value: "not known",
  },
  zh: {
    tagline: "实时在馆人数",
    skip_to_alerts: "跳到提醒",
    language: "语言",
    summary: "概览",
    people_in_house: "在馆人数",
    free_seats: "空闲座位",
    open_alerts: "待处理提醒",
    events_per_second: "每秒事件数",
    of_capacity: "容量 {capacity} · {share}",
    of_seats: "共 {seats} 个",
    no_seats: "暂无座位传感器",
    alerts_critical: { other: "{n} 条紧急" },
    alerts_new: { other: "{n} 条待查看" },
    alerts_taken: "均已有人处理",
    alerts_calm: "一切正常",
    latency_note: "提醒延迟 {ms}",
    zones: "区域",
    order: "区域排序",
    order_place: "按位置",
    order_fullest: "最满优先",
    other_areas: "其他区域",
    quiet: "空闲",
    busy: "较忙",
    "very busy": "拥挤",
    unknown: "未知",
    of: "/ {capacity}",
    people: { other: "人" },
    near: "约 {low}–{high}",
    likely: "估计在 {low} 至 {high} 人之间",
    seats_free: { other: "空座 {n} 个" },
    stale: "数据未更新",
    unlisted: "未登记于 site.toml",
    never: "尚无数据",
    trend_up: { other: "比 15 分钟前多 {n} 人" },
    trend_down: { other: "比 15 分钟前少 {n} 人" },
    empty_title: "还没有区域",
    empty_text: "收到第一个事件后，区域会自动出现在这里；也可以写在 site.toml 中。发送一个事件试试：",
    waiting_title: "等待第一个事件",
    waiting_text: "区域已登记，但传感器尚未上报。发送一个事件试试：",
    copy: "复制",
    copied: "已复制",
    copy_by_hand: "已选中，请按 Ctrl+C 复制",
    load_failed: "无法读取数据：{reason}。正在重试。",
    lost: "连接已断开，正在重连。当前数据截至 {time}。",
    lost_plain: "连接已断开，正在重连。",
    silent: "自 {time} 起引擎没有消息，仍在监听。",
    back: "已重新连接",
    health_waiting: "正在连接",
    health_ok: "实时，运行正常",
    health_degraded: "实时，需要关注",
    health_lost: "连接已断开",
    health_title: "引擎运行状况",
    messages_per_second: "每秒消息数",
    alert_latency: "提醒延迟（中位数）",
    alert_latency_99: "提醒延迟（99 百分位）",
    log_lag: "日志滞后",
    refused: "无法读取的消息",
    devices_silent: "无响应设备",
    sources: "数据源",
    no_sources: "尚无连接",
    connected: "已连接",
    disconnected: "未连接",
    source_shed: { other: "因来不及处理而丢弃 {n} 条消息" },
    deliveries: "投递",
    receivers_none: "尚无接收方",
    "breaker_closed": "正常投递",
    "breaker_open": "无法送达，稍后重试",
    "breaker_half-open": "正在尝试",
    receiver_waiting: { other: "{n} 条等待中" },
    waiting_since: "（自 {time} 起）",
    receiver_sent: { other: "已送达 {n} 条" },
    receiver_lost: { other: "因积压过多丢失 {n} 条" },
    receiver_dead: { other: "{n} 条未被接收：查看" },
    letters: "未被接收",
    letters_note: "该接收方未接收的消息。待其修复后可重新发送：每条消息保留原编号，不会重复计入。",
    letters_none: "这里没有未处理的消息。",
    letters_reading: "正在读取…",
    letter_tries: { other: "已尝试 {n} 次" },
    letter_resent: "正在重新发送",
    resend: "重新发送",
    resend_all: "全部重新发送",
    resent: { other: "{n} 条正在重新发送" },
    parts: "重新启动",
    part_running: "运行中，曾失败 {times} 次",
    part_waiting: "已停止，即将重启；曾失败 {times} 次",
    replay: "{speed} 倍速回放",
    engine_clock: "引擎时间",
    alerts: "提醒",
    acting_as: "处理人",
    nobody: "馆员",
    none_open: "目前没有需要处理的事项。",
    more_alerts: { other: "再显示 {n} 条" },
    fewer_alerts: "收起",
    not_shown: { other: "另有 {n} 条未显示" },
    watched: { other: "观察中（{n}）" },
    watched_note: "条件已出现，但持续时间还不足以触发提醒。",
    quieted: { other: "已暂缓或抑制（{n}）" },
    cleared: { other: "最近解除（{n}）" },
    critical: "紧急",
    warning: "警告",
    info: "提示",
    state_pending: "观察中",
    state_active: "进行中",
    state_acknowledged: "已确认",
    state_recovering: "恢复中",
    state_cleared: "已解除",
    snoozed: "已暂缓",
    snoozed_until: "暂缓至 {time}",
    suppressed: "已抑制",
    acknowledged_by: "{by} 已确认",
    acknowledge: "确认",
    snooze: "暂缓 30 分钟",
    comment: "备注",
    clear: "解除",
    details: "详情",
    comment_label: "为此提醒添加备注",
    send: "发送",
    cancel: "取消",
    comments: "备注",
    commented: "备注已保存",
    action_failed: "操作未成功：{reason}",
    steps: "经过",
    steps_reading: "正在读取…",
    steps_none: "暂无记录",
    steps_failed: "无法读取经过：{reason}",
    steps_left_out: { other: "有 {n} 步未保留" },
    what_pending: "开始观察", what_raised: "发出", what_relapsed: "再次出现", what_recovering: "恢复中",
    what_cleared: "解除", what_withdrawn: "撤回", what_acknowledged: "确认", what_assigned: "指派给",
    what_commented: "备注：", what_snoozed: "暂缓", what_unsnoozed: "结束暂缓", what_suppressed: "抑制：",
    what_unsuppressed: "结束抑制：", what_escalated: "升级为", what_regrouped: "分组有变化",
    why_rule: "规则条件", why_clock: "时间已到", why_staff: "馆员操作", why_inhibition: "另有提醒说明同一情况",
    why_quiet: "免打扰时段", why_calendar: "开放时间", why_no_data: "没有测量数据", why_group: "同组提醒",
    why_configuration: "规则已移除",
    why_opted_out: "当事人不希望被记录",
    held_quiet: "免打扰时段", held_closed: "闭馆", held_open: "开馆", held_no_data: "没有测量数据",
    assigned_nobody: "无人",
    until: "至 {time}",
    rule: "规则",
    state: "状态",
    values: "数值",
    causes: "触发事件",
    more_causes: { other: "另有 {n} 个" },
    no_causes: "没有事件：因长时间无事件而触发",
    event_time: "事件时间",
    raised_at: "发出时间",
    stages: "从消息到提醒",
    stage_decoded: "读取",
    stage_evaluated: "计算",
    stage_sent: "发送",
    announce_many: { other: "{n} 条新提醒" },
    kind_zone: "区域", kind_seat: "座位", kind_person: "读者", kind_item: "馆藏", kind_device: "传感器", kind_usher: "引擎",
    close: "关闭",
    history: "人数变化",
    history_none: "暂无历史数据，收到事件后逐渐积累。",
    history_summary: "{zone}：{from} 至 {to}，人数在 {low} 与 {high} 之间，目前 {now}",
    capacity: "容量",
    range: "估计范围",
    full: "占用率",
    as_of: "数据时间",
    seats: "座位",
    seat_occupied: "使用中",
    seat_free: "空闲",
    seat_away: "暂离",
    seat_unknown: "未知",
    since: "自 {time}",
    just_now: "刚刚",
    alerts_here: "本区域提醒",
    unknown_value: "未知",
  },
};

// What shipped rules say in Chinese. The engine writes an alert's text once, in the language of its query.
const RULES = {
  zh: {
    zone_crowded: "{zone}已达容量的 {percent}%",
    item_left_unborrowed: "馆藏 {item} 未办理借阅即经{zone}带出",
    search_needs_help: "一位读者连续 {failed} 次检索无结果，可能需要帮助",
    seat_left_behind: "{zone}座位 {seat} 长时间仅有物品占座",
    device_silent: "{zone}的传感器 {device} 长时间没有数据",
    "usher.shed": "有 {messages} 条无需确认的消息（QoS 0）被丢弃",
  },
};

const LOCALES = { en: "en-GB", zh: "zh-CN" };
// Younger ages are one word: a figure that changes each second draws the eye to nothing.
const JUST_NOW_S = 5;
const REMEMBERED = "usher.language";

let language = "en";
let timeZone;
let formats = {};

export function remembered(name, fallback) {
  try {
    return localStorage.getItem(name) ?? fallback;
  } catch {
    return fallback; // A browser that keeps nothing still shows the page.
  }
}

export function remember(name, value) {
  try {
    localStorage.setItem(name, value);
  } catch {
    // Nothing to do: the choice holds until the page is closed.
  }
}

function makeFormats() {
  // English readers elsewhere keep their own habits; a page in another language than the browser's takes ours.
  const own = navigator.languages?.find((tag) => tag.toLowerCase().startsWith(language));
  const locale = own ?? LOCALES[language];
  const zone = timeZone ? { timeZone } : {};
  formats = {
    number: new Intl.NumberFormat(locale, { maximumFractionDigits: 0 }),
    decimal: new Intl.NumberFormat(locale, { maximumFractionDigits: 2 }),
    percent: new Intl.NumberFormat(locale, { style: "percent", maximumFractionDigits: 0 }),
    ago: new Intl.RelativeTimeFormat(language, { numeric: "always", style: language === "en" ? "narrow" : "long" }),
    hour: new Intl.DateTimeFormat(locale, { ...zone, hour: "2-digit", minute: "2-digit", hourCycle: "h23" }),
    clock: new Intl.DateTimeFormat(locale, { ...zone, hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" }),
    date: new Intl.DateTimeFormat(locale, { ...zone, weekday: "long", day: "numeric", month: "long" }),
    day: new Intl.DateTimeFormat(locale, { ...zone, day: "numeric", month: "short", hour: "2-digit", minute: "2-digit", hourCycle: "h23" }),
    plural: new Intl.PluralRules(locale),
    names: new Intl.Collator(locale, { numeric: true }),
  };
}

export const spoken = () => language;

export function speak(wanted) {
  language = TEXTS[wanted] ? wanted : "en";
  document.documentElement.lang = language === "zh" ? "zh-CN" : "en";
  remember(REMEMBERED, language);
  makeFormats();
  for (const node of document.querySelectorAll("[data-words]")) node.textContent = say(node.dataset.words);
  for (const node of document.querySelectorAll("[data-words-label]")) node.setAttribute("aria-label", say(node.dataset.wordsLabel));
}

export function speakFirst() {
  const guess = (navigator.language ?? "en").toLowerCase().startsWith("zh") ? "zh" : "en";
  speak(remembered(REMEMBERED, guess));
}

// Times are those of the place when the engine tells its time zone, else those of the browser.
export function useTimeZone(wanted) {
  if (!wanted || wanted === timeZone) return;
  const before = timeZone;
  timeZone = wanted;
  try {
    makeFormats();
  } catch {
    timeZone = before;
    makeFormats();
  }
}

const fill = (text, values) => text.replace(/\{(\w+)\}/g, (whole, name) => values[name] ?? whole);

// `values.n`, a number, chooses between singular and plural.
export function say(key, values = {}) {
  const text = TEXTS[language][key] ?? TEXTS.en[key] ?? key;
  if (typeof text === "string") return fill(text, values);
  return fill(text[formats.plural.select(values.n ?? 0)] ?? text.other, { ...values, n: number(values.n ?? 0) });
}

export const has = (key) => key in TEXTS[language];

export const number = (value) => (Number.isFinite(value) ? formats.number.format(value) : "–");
export const decimal = (value) => (Number.isFinite(value) ? formats.decimal.format(value) : "–");
export const percent = (share) => (Number.isFinite(share) ? formats.percent.format(share) : "–");
// A duration in milliseconds: three figures are all one can trust of it.
export const milliseconds = (value) => (Number.isFinite(value) ? `${decimal(Number(value.toPrecision(value < 100 ? 2 : 3)))} ms` : "–");
export const compare = (a, b) => formats.names.compare(a, b);

const timeOf = (time) => (typeof time === "number" ? time : Date.parse(time));
const written = (format) => (time) => {
  const epoch = timeOf(time);
  return Number.isFinite(epoch) ? formats[format].format(epoch) : "–";
};
export const hour = written("hour");
export const clockTime = written("clock");
export const date = written("date");
export const day = written("day");

// How long ago by the engine's clock, in the largest unit that fits.
export function ago(time) {
  const epoch = timeOf(time);
  if (!Number.isFinite(epoch)) return "–";
  const seconds = Math.max(0, Math.round((clock.now() - epoch) / 1000));
  if (seconds < JUST_NOW_S) return say("just_now");
  if (seconds < 60) return formats.ago.format(-seconds, "second");
  if (seconds < 3600) return formats.ago.format(-Math.floor(seconds / 60), "minute");
  if (seconds < 86400) return formats.ago.format(-Math.floor(seconds / 3600), "hour");
  return formats.ago.format(-Math.floor(seconds / 86400), "day");
}

// "reading-room" reads "Reading room".
export function readable(id) {
  const text = String(id ?? "").replace(/[-_]+/g, " ").trim();
  return text ? text[0].toUpperCase() + text.slice(1) : "–";
}

// A name is one text for every language or one for each; without it the id is made readable.
export function nameOf(name, id) {
  if (typeof name === "string" && name) return name === id ? readable(id) : name;
  if (name && typeof name === "object") return name[language] ?? name.en ?? Object.values(name)[0] ?? readable(id);
  return readable(id);
}

// The text of an alert in the page's language where we know the rule and have what it speaks about, else the engine's.
export function alertText(alert, zoneName) {
  const template = RULES[language]?.[alert.rule];
  if (!template) return alert.text ?? readable(alert.rule);
  const values = { ...alert.values };
  if (alert.subject?.kind) values[alert.subject.kind] = alert.subject.id;
  if (zoneName) values.zone = zoneName;
  if (values.percent === undefined && Number.isFinite(values.share)) values.percent = Math.round(100 * values.share);
  if (values.percent === undefined && values.capacity > 0) values.percent = Math.round((100 * values.persons) / values.capacity);
  const needed = [...template.matchAll(/\{(\w+)\}/g)].map((match) => match[1]);
  if (needed.some((name) => values[name] === undefined || values[name] === null)) return alert.text ?? readable(alert.rule);
  return fill(template, values);
}

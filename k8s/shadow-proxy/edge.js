// What NGINX's own directives cannot do at the edge: reading the shadow's answers to their end, and writing down what
// was answered (schemas/response.schema.json). For njs 0.7 and later.
//
// Rules of this file. A user's answer goes on before it is looked at, and no failure here reaches it. What is kept of a
// body is bounded: njs copies each chunk it is shown, so a filter that has seen enough says done(). A record is one line
// of JSON in UTF-8, whatever bytes a backend sends.

const LINE_BYTES_MAX = 250000;      // rsyslog's message is at most 256 KiB
const BODY_BYTES_MAX = 180000;      // of the line; text that needs more because of its escapes goes as base64
const JSON_BYTES_MAX = 16384;       // larger JSON goes as text: to parse it here would keep other requests waiting
const HEADER_CHARS_MAX = 256;
const REDACTED = '[redacted]';
const ALWAYS_REDACTED = ['authorization', 'proxy-authorization', 'cookie', 'set-cookie'];

// The body under way. A request has a VM to itself, or (QuickJS) one that served others before: so it names its request.
let body = null;

// What follows a bracket, colon or comma like a number and is none (RFC 8259).
const ODD_NUMBER = /[[:,][ \t\r\n]*(?=[-.0-9])(?!-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?[ \t\r\n]*[\]},])/;

// --- filters ---------------------------------------------------------------------------------------------------------

// Passes a user's answer on and keeps its beginning. Each piece is sent at once, as NGINX does with what it reads from a
// backend: njs forgets that mark, and without it a small piece of a stream would wait for more.
function keep(r, data, flags) {
    r.sendBuffer(data, { last: flags.last, flush: data.length > 0 });
    try {
        const one = under_way(r);
        take(one, data, flags);
        if (one.bytes > one.max) {
            r.done();
        }
    } catch (error) {
        body = null;
        r.done();
    }
}

// Reads the shadow's answer to its end and passes none of it on: nobody is waiting for it, and writing to the hop, which
// has left, would end the connection to the shadow before it has answered in full. An answer without an end, or a huge
// one, is given up: throwing closes the connection.
function discard(r, data, flags) {
    const one = under_way(r);
    take(one, data, flags);
    if (flags.last) {
        r.sendBuffer('', flags);
        return;
    }
    if (one.bytes > Number(r.variables.edge_shadow_body_max)) {
        one.given_up = 'answer_too_large';
    } else if (one.at - one.began > Number(r.variables.edge_shadow_answer_s_max) * 1000) {
        one.given_up = 'answer_too_long';
    }
    if (one.given_up) {
        throw new Error(`the shadow's answer is given up: ${one.given_up}`);
    }
}

function under_way(r) {
    const id = r.variables.request_id;
    if (body === null || body.id !== id) {
        const max = Number(r.variables.edge_capture_body_max);
        const now = Date.now();
        body = { id: id, max: max, parts: [], kept: 0, bytes: 0, last: false, given_up: '', began: now, at: now };
    }
    return body;
}

function take(one, data, flags) {
    const room = one.max - one.kept;
    if (data.length && room > 0) {
        one.parts.push(data.length > room ? data.slice(0, room) : data);
        one.kept += Math.min(room, data.length);
    }
    if (data.length) {
        one.bytes += data.length;
        one.at = Date.now();
    }
    one.last = one.last || flags.last;
}

// --- records, made when a request is logged; '' for none -------------------------------------------------------------

function main_record(r) {
    return line_of(r, 'main');
}

function canary_record(r) {
    return line_of(r, 'canary');
}

function shadow_record(r) {
    return line_of(r, 'shadow');
}

function line_of(r, side) {
    const v = r.variables;
    const status = Number(last_of(v.upstream_status));
    // Without headers there was no answer, and there is no record: the edge's line says 502 or 504.
    if (!(status >= 100 && status <= 599) || last_of(v.upstream_header_time) === '-') {
        return '';
    }
    const fields = { side: side, ts: Number(v.msec), method: r.method, path: v.edge_log_uri, status: status };
    try {
        const line = with_content(r, side, fields);
        if (line.length * 4 <= LINE_BYTES_MAX || Buffer.from(line).length <= LINE_BYTES_MAX) {
            return line;
        }
        fields.capture_gap = 'headers_too_large';
    } catch (error) {
        r.error(`the response of ${v.edge_request_id} cannot be captured: ${error}`);
        fields.capture_gap = 'capture_failed';
    }
    fields.body_truncated = true;
    fields.path = fields.path.slice(0, 16384);
    return opened(v, fields) + '}';
}

// The record without its closing bracket. The id stands first: the shipper takes the key from there.
function opened(v, fields) {
    return `{"v":1,"request_id":"${v.edge_request_id}",` + JSON.stringify(fields).slice(1, -1);
}

function with_content(r, side, fields) {
    const v = r.variables;
    const secret = redacted_names(v);
    const one = body !== null && body.id === v.request_id ? body : null;
    const seconds = Number(last_of(v.upstream_response_time));
    if (seconds >= 0) {
        fields.duration_ms = Math.round(seconds * 1000);
    }
    const optional = { user_id: v.edge_log_user, idempotency_key: v.edge_log_key };
    for (let name in optional) {
        if (optional[name]) {
            fields[name] = plain(optional[name]).slice(0, HEADER_CHARS_MAX);
        }
    }
    const writes = v.upstream_http_x_verifier_writes;
    if (writes && /^[0-9]{1,6}$/.test(writes)) {
        fields.writes = Number(writes);
    }
    const headers = headers_of(r, v.edge_set_cookie);
    const whole = one === null || one.last && one.bytes === one.kept;
    fields.body_truncated = !whole;
    if (one !== null && !one.last && (side === 'shadow' || one.bytes <= one.max)) {
        ended_early(side, fields, one, v);
    }
    const length = one === null ? 0 : one.last ? one.bytes : Number(r.headersOut['Content-Length']);
    if (length >= 0) {
        fields.body_bytes = length;
    }
    const bytes = one === null ? Buffer.from('') : one.parts.length === 1 ? one.parts[0] : Buffer.concat(one.parts);
    const content = content_of(bytes, headers, !whole, secret.fields);
    if (content.withheld) {
        fields.body_truncated = true;
        fields.capture_gap = 'body_not_redactable';
    }
    fields.body_encoding = content.encoding;
    return opened(v, fields) + ',"headers":' + headers_json(headers, secret.headers) + (content.withheld ? '' : ',"body":' + content.json) + '}';
}

// The answer broke off. The shadow's is its own doing unless we gave it up or it stood still for too long: then it is
// compared as far as it came, for a user would have got no more. With a user's answer nobody can tell who left first.
function ended_early(side, fields, one, v) {
    if (side !== 'shadow') {
        fields.capture_gap = 'answer_cut';
    } else if (one.given_up || Date.now() - one.at >= 0.9 * milliseconds(v.edge_shadow_timeout)) {
        fields.capture_gap = one.given_up || 'shadow_timeout';
    } else {
        fields.error = 'the answer ended before it was complete';
        fields.body_truncated = one.bytes > one.kept;
    }
}

// --- headers ---------------------------------------------------------------------------------------------------------

// [name in small letters, [values]] of each, as the backend gave them: without what the edge added.
function headers_of(r, own_cookie) {
    const type = r.headersOut['Content-Type'];
    const found = type ? [['content-type', [plain(type)]]] : [];
    r.rawHeadersOut.forEach(pair => {
        const name = plain(pair[0]).toLowerCase();
        if (name === 'x-request-id' || name === 'content-type' || name === 'set-cookie' && pair[1] === own_cookie) {
            return;
        }
        const known = found.find(each => each[0] === name);
        if (known === undefined) {
            found.push([name, [plain(pair[1])]]);
        } else {
            known[1].push(plain(pair[1]));
        }
    });
    return found;
}

function header(headers, name) {
    const found = headers.find(each => each[0] === name);
    return found === undefined ? '' : found[1].join(',').toLowerCase();
}

function headers_json(headers, secret) {
    return '{' + headers.map(each => {
        const values = secret.includes(each[0]) ? each[1].map(() => REDACTED) : each[1];
        return JSON.stringify(each[0]) + ':' + JSON.stringify(values.length === 1 ? values[0] : values);
    }).join(',') + '}';
}

function redacted_names(v) {
    const more = v.edge_capture_redact;
    if (!more) {
        return { headers: ALWAYS_REDACTED, fields: [] };
    }
    const fields = more.toLowerCase().split(',').map(name => name.trim()).filter(name => name !== '');
    return { headers: ALWAYS_REDACTED.concat(fields), fields: fields };
}

// --- bodies ----------------------------------------------------------------------------------------------------------

// {encoding, json}: the JSON text of the body; or withheld, if it may hold a secret that cannot be found.
function content_of(bytes, headers, truncated, secret) {
    const type = header(headers, 'content-type').split(';')[0].trim();
    const is_json = type.endsWith('/json') || type.endsWith('+json');
    const is_form = type === 'application/x-www-form-urlencoded';
    const coding = header(headers, 'content-encoding');
    if (bytes.length && coding !== '' && coding !== 'identity') {
        return secret.length ? { encoding: 'base64', withheld: true } : base64(bytes);
    }
    let text, raw = bytes;
    try {
        text = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes, { stream: truncated });
    } catch (error) {
        return secret.length && (is_json || is_form) ? { encoding: 'base64', withheld: true } : base64(bytes);
    }
    if (secret.length) {
        text = is_form ? form_redacted(text, secret) : redacted(text, secret);
        raw = Buffer.from(text);
    }
    if (is_json && !truncated && raw.length <= JSON_BYTES_MAX && is_plain_json(text)) {
        return { encoding: 'json', json: text.replace(/[\r\n]/g, ' ').trim() };
    }
    const json = JSON.stringify(text);
    return raw.length + json.length - text.length > BODY_BYTES_MAX ? base64(raw) : { encoding: 'text', json: json };
}

function base64(bytes) {
    return { encoding: 'base64', json: '"' + bytes.toString('base64') + '"' };
}

// Whether every reader of JSON takes the text as it stands. JSON.parse here lets some numbers pass that are none, and
// escapes of half a character are refused elsewhere. What looks like either goes as text, and so does some that is fine:
// to look more closely would cost more than all the rest.
function is_plain_json(text) {
    const first = text.trim()[0];
    if (first !== '{' && first !== '[' || text.includes('\\u') || ODD_NUMBER.test(text)) {
        return false;
    }
    try {
        JSON.parse(text);
        return true;
    } catch (error) {
        return false;
    }
}

// JSON members of these names, at any depth, with their values replaced; nothing else of the text is touched. Works on
// a beginning, too, and on what merely holds JSON: strings are read one by one, so a name is never found inside one.
function redacted(text, secret) {
    const strings = /"([^"\\]*(?:\\.[^"\\]*)*)"(?:[ \t\r\n]*(:))?/g;
    let out = '', from = 0, found;
    while ((found = strings.exec(text)) !== null) {
        const end = strings.lastIndex;
        if (found[2] === undefined || !secret.includes(unescaped(found[1]).toLowerCase())) {
            continue;
        }
        out += text.slice(from, end) + '"' + REDACTED + '"';
        from = end_of_value(text, end);
        strings.lastIndex = from;
    }
    return out + text.slice(from);
}

function unescaped(name) {
    try {
        return name.includes('\\') ? JSON.parse('"' + name + '"') : name;
    } catch (error) {
        return name;
    }
}

function end_of_value(text, start) {
    const tokens = /"[^"\\]*(?:\\.[^"\\]*)*("|$)|[[{]|[\]}]|,/g;
    tokens.lastIndex = start;
    let depth = 0, token;
    while ((token = tokens.exec(text)) !== null) {
        const first = token[0][0];
        if (first === '[' || first === '{') {
            depth += 1;
        } else if (first === ']' || first === '}') {
            depth -= 1;
        }
        if (depth < 0 || depth === 0 && first === ',') {
            return token.index;
        }
    }
    return text.length;
}

function form_redacted(text, secret) {
    return text.split('&').map(pair => {
        const name = pair.split('=')[0];
        let plain_name = name;
        try {
            plain_name = decodeURIComponent(name.replace(/\+/g, ' '));
        } catch (error) {
            // not a name that any reader would take for one of ours
        }
        return secret.includes(plain_name.toLowerCase()) ? name + '=' + REDACTED : pair;
    }).join('&');
}

// --- values ----------------------------------------------------------------------------------------------------------

// A header's text in UTF-8. What is not UTF-8 is read as Latin-1, which keeps bytes apart, where njs gives bytes (before
// 0.8; since then it gives U+FFFD).
function plain(text) {
    if (/^[\x00-\x7f]*$/.test(text)) {
        return text;
    }
    const decoded = Buffer.from(text).toString('utf8');
    if (!decoded.includes('\ufffd')) {
        return decoded;
    }
    let out = '';
    for (let at = 0; at < text.length; at++) {
        const code = text.charCodeAt(at);
        if (code > 255) {
            return decoded;
        }
        out += String.fromCharCode(code);
    }
    return out;
}

// The last of several tries, as NGINX lists them.
function last_of(list) {
    if (!list) {
        return '-';
    }
    return list.slice(Math.max(list.lastIndexOf(','), list.lastIndexOf(':')) + 1).trim();
}

function milliseconds(time) {
    const found = /^([0-9]+)(ms|s|m|h)?$/.exec(time);
    return found === null ? 0 : Number(found[1]) * { ms: 1, s: 1000, m: 60000, h: 3600000 }[found[2] || 's'];
}

export default { keep, discard, main_record, canary_record, shadow_record };

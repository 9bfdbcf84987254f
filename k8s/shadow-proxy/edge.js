// What NGINX's own directives cannot do at the edge (njs 0.7 and later).

// The hop's answer to a mirror copy: at once, in the content phase, so that the hop's own mirror has started.
function acknowledge(r) {
    r.return(204);
}

// Reads the shadow's answer to its end and passes none of it on: nobody is waiting for it, and writing
// to the hop, which has left, would end the connection to the shadow before it has answered in full.
function discard(r, data, flags) {
    if (flags.last) {
        r.sendBuffer('', flags);
    }
}

export default { acknowledge, discard };

{#- A mail domain without the person in it: a large provider keeps its name, any other domain (a family's, a small
    firm's) only its last label: `gmail.com` stays, `schneider-berlin.de` becomes `*.de`. -#}
{% macro mask_email_domain(domain) -%}
    /*breaker:mask_email_domain(*/ case
        when lower({{ domain }}) in (
            'aol.com', 'gmail.com', 'gmx.de', 'gmx.net', 'googlemail.com', 'hotmail.com', 'icloud.com', 'live.com',
            'mail.ru', 'msn.com', 'orange.fr', 'outlook.com', 'proton.me', 'protonmail.com', 'qq.com', 'web.de',
            'yahoo.co.jp', 'yahoo.com'
        ) then lower({{ domain }})
        else '*.' || split_part(lower({{ domain }}), '.', -1)
    end /*)breaker*/
{%- endmacro %}
